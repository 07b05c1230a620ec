"""Logical axes of states and stacks, and the rules that must cover them."""

import jax
import jax.numpy as jnp
import optax
import pytest

from dst_t5x.hooks import axes

SHAPES = {'a/w': (4, 6), 'a/v': (6,), 'w': (6,)}
AXES = {'a/w': ('embed', 'mlp'), 'a/v': ('mlp',), 'w': ('heads',)}


def is_axes(x):
  return x is None or (
    isinstance(x, tuple) and bool(x) and set(map(type, x)) == {str}
  )


def params():
  return {
    'a': {'w': jnp.ones((4, 6)), 'v': jnp.ones(6)},
    'w': jnp.ones(6),
  }


@pytest.mark.parametrize(
  'optimizer',
  [
    optax.adamw(1e-3),
    optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9)),
    optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    optax.contrib.schedule_free_adamw(1e-3),  # T5X has no rule for its state
    optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
  ],
)
def test_follows_path_and_shape_not_type(optimizer):
  state = optimizer.init(params())
  found = axes.of_state(state, SHAPES, AXES)
  leaves = jax.tree_util.tree_leaves_with_path(found, is_leaf=is_axes)
  named = {
    jax.tree_util.keystr(key, simple=True, separator='/'): leaf
    for key, leaf in leaves
  }
  values = {
    jax.tree_util.keystr(key, simple=True, separator='/'): leaf
    for key, leaf in jax.tree_util.tree_leaves_with_path(state)
  }
  assert named.keys() == values.keys()
  for path, leaf in values.items():
    if path.endswith('a/w') and leaf.shape == (4, 6):
      assert named[path] == ('embed', 'mlp'), path
    elif path.endswith('a/v') and leaf.shape == (6,):
      assert named[path] == ('mlp',), path
    elif path.endswith('/w') and leaf.shape == (6,):
      assert named[path] == ('heads',), path
    else:
      assert named[path] is None, path
  assert sum(x is not None for x in named.values()) >= 3


def test_another_shape_is_replicated():
  state = {'factored': {'a': {'w': jnp.ones(4)}}}
  assert axes.of_state(state, SHAPES, AXES) == {'factored': {'a': {'w': None}}}


def test_stacks():
  found = axes.stacks({'a/w': ('embed', 'layers', 'mlp'), 'b': ('embed',)})
  assert found == {'a/w': 1}
  assert axes.stacks({'a': ('blocks', 'x')}, names=('blocks',)) == {'a': 0}
  with pytest.raises(ValueError, match="'a'.*2 axes"):
    axes.stacks({'a': ('layers', 'layers')})


def test_rules_must_cover_every_axis():
  rules = [('embed', None), ('mlp', 'model'), ('heads', 'model')]
  axes.check_rules(AXES, rules, partitioner='P')
  with pytest.raises(ValueError, match=r"'a/v'.*'mlp'.*no rule.*embed, heads"):
    axes.check_rules({'a/v': ('mlp',)}, [rules[0], rules[2]], partitioner='P')
  with pytest.raises(ValueError, match='no logical axis rules'):
    axes.check_rules(AXES, None, partitioner='P')
