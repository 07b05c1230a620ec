"""Paths of parameters."""

import collections

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from dst_t5x.arrays import paths

NAMES = st.text('ab_0-.', min_size=1, max_size=3)
TREES = st.recursive(
  st.integers(),
  lambda children: st.dictionaries(NAMES, children, min_size=1, max_size=4),
  max_leaves=12,
).filter(lambda tree: isinstance(tree, dict))


@hypothesis.given(TREES)
def test_unflatten_undoes_flatten(tree):
  flat = paths.flatten(tree)
  assert list(flat) == sorted(flat)
  assert paths.unflatten(flat) == tree


@pytest.mark.parametrize('key', ['', 'a/b', 3])
def test_a_name_that_cannot_be_in_a_path_is_refused(key):
  with pytest.raises(ValueError, match="non-empty string without '/'"):
    paths.flatten({'top': {key: 1}})


def test_a_parameter_cannot_be_a_module_too():
  with pytest.raises(ValueError, match="'a/b' goes through a parameter"):
    paths.unflatten({'a': 1, 'a/b': 2})


def test_named_leaves_are_in_the_order_of_jax_and_take_any_container():
  Pair = collections.namedtuple('Pair', 'left right')
  tree = {'b': (1, [2]), 'a': Pair(3, {'x': 4}), 'none': None}
  named = paths.named_leaves(tree)
  assert list(named.items()) == [
    ('a/left', 3),
    ('a/right/x', 4),
    ('b/0', 1),
    ('b/1/0', 2),
  ]


def test_named_leaves_of_nested_dicts_are_those_of_flatten():
  tree = {'b': {'c': np.ones(2)}, 'a': np.zeros(())}
  assert paths.named_leaves(tree).keys() == paths.flatten(tree).keys()


def test_two_leaves_of_one_path_are_refused():
  with pytest.raises(ValueError, match="two parameters have the path 'a/b'"):
    paths.named_leaves({'a': {'b': 1}, 'a/b': 2})
