"""Taking a delta: exact for every kind of array, or refused."""

import copy

import numpy as np
import pytest

from dst_t5x import delta as delta_lib
from dst_t5x import seeds
from dst_t5x.arrays import paths
from dst_t5x.delta import difference
from tests.delta.example_params import (
  KINDS,
  SEED,
  A,
  as_kind,
  assert_same,
  with_leaf,
  without,
)


def test_diff_finds_what_struct_finds():
  delta = delta_lib.diff(SEED, A)
  assert list(delta.entries) == list(paths.flatten(SEED))
  tuned = paths.flatten(A)
  for path, old in paths.flatten(SEED).items():
    width = old.dtype.itemsize
    before, after = old.tobytes(), tuned[path].tobytes()
    entry = delta.entries[path]
    assert (entry.shape, entry.dtype) == (old.shape, old.dtype)
    expected = [
      i
      for i in range(old.size)
      if before[i * width : (i + 1) * width]
      != after[i * width : (i + 1) * width]
    ]
    assert entry.positions.tolist() == expected, path
    assert entry.values.tobytes() == b''.join(
      after[i * width : (i + 1) * width] for i in expected
    )


@pytest.mark.parametrize('kind', KINDS)
def test_diff_is_the_same_for_every_kind_of_array(kind):
  assert delta_lib.diff(
    as_kind(kind, SEED), as_kind(kind, A)
  ) == delta_lib.diff(SEED, A)


def test_diff_goes_on_beyond_a_chunk(monkeypatch):
  whole = delta_lib.diff(SEED, A)
  monkeypatch.setattr(difference, '_CHUNK', 5)
  assert delta_lib.diff(SEED, A) == whole


def test_diff_says_where_it_came_from():
  info = delta_lib.diff(
    SEED, A, method='dst', epsilon=0.25, silo_rule='tensor', step=7
  ).info
  assert (info.method, info.epsilon, info.budget) == ('dst', 0.25, None)
  assert (info.silo_rule, info.step) == ('tensor', 7)
  assert info.seed_fingerprint == seeds.fingerprint(SEED)
  assert info.result_fingerprint == seeds.fingerprint(A)


def test_equal_parameters_give_an_empty_delta():
  delta = delta_lib.diff(SEED, copy.deepcopy(SEED))
  assert delta.size == 0
  assert_same(delta_lib.apply(SEED, delta), SEED)


def test_everything_may_differ():
  seed, tuned = {'a': np.zeros((3, 4))}, {'a': np.ones((3, 4))}
  delta = delta_lib.diff(seed, tuned, epsilon=1.0)
  assert delta.entries['a'].positions.tolist() == list(range(12))
  assert_same(delta_lib.apply(seed, delta), tuned)


def test_too_many_differences_are_refused_with_the_numbers():
  seed, tuned = {'a': np.zeros(8)}, {'a': np.arange(8.0) // 6}
  assert delta_lib.diff(seed, tuned, max_fraction=0.25).size == 2
  with pytest.raises(
    delta_lib.TooManyDifferencesError, match=r'2 of 8 .*0\.25.* at most 0\.24'
  ):
    delta_lib.diff(seed, tuned, max_fraction=0.24)


@pytest.mark.parametrize(
  ('change', 'error', 'message'),
  [
    (
      without('gain'),
      delta_lib.UnknownParameterError,
      "no 'gain' among the tuned",
    ),
    (
      with_leaf('more', np.ones(1)),
      delta_lib.UnknownParameterError,
      "no 'more' among the seed",
    ),
    (
      with_leaf('gain', np.ones(1, np.float32)),
      delta_lib.ShapeMismatchError,
      "'gain'",
    ),
    (with_leaf('gain', np.ones(())), delta_lib.DtypeMismatchError, "'gain'"),
    (
      with_leaf('gain', np.float32(np.nan).reshape(())),
      delta_lib.NonFiniteValueError,
      "'gain'.*nan",
    ),
  ],
)
def test_diff_refuses(change, error, message):
  with pytest.raises(error, match=message):
    delta_lib.diff(SEED, change(SEED))
