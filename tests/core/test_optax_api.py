"""The step in an optax loop."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dst_t5x.core import methods, silos
from dst_t5x.core.optax_api import ExactUpdate, selective_tuning
from tests import checks, untyped


@pytest.fixture(autouse=True)
def _as_in_a_users_loop(_strict_promotion):
  with jax.numpy_dtype_promotion('standard'):
    yield


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
  kernel: jax.Array
  bias: jax.Array


def params():
  rng = np.random.default_rng(0)
  return {
    'layers': (
      Layer(np.float32(rng.normal(size=(4, 5))), np.float32(np.ones(5))),
      [jnp.asarray(rng.normal(size=(5, 2)), jnp.float32)],
    ),
    'scale': jnp.float32(0.5),
    'unused': None,
  }


def loss(params, x):
  first, (last,) = params['layers']
  y = jnp.tanh(x @ first.kernel + first.bias) @ last * params['scale']
  return jnp.mean((y - 1.0) ** 2)


def count_changed(a, b):
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return sum(
    int((checks.bits(x) != checks.bits(np.asarray(y))).sum()) for x, y in pairs
  )


def test_a_jitted_loop_over_tuples_dataclasses_and_numpy():
  seed = params()
  kept = [np.asarray(x).copy() for x in jax.tree.leaves(seed)]
  tx = selective_tuning(
    optax.chain(
      optax.clip_by_global_norm(1.0), optax.adamw(0.1, weight_decay=0.1)
    ),
    methods.dst(silo_scheme='none'),
    budget=4,
  )
  x = jnp.asarray(np.random.default_rng(1).normal(size=(8, 4)), jnp.float32)

  @jax.jit
  def step(params, state):
    value, gradients = jax.value_and_grad(loss)(params, x)
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, value

  now, state = seed, tx.init(seed)
  losses = []
  for _ in range(10):
    now, state, value = step(now, state)
    losses.append(float(value))
    assert count_changed(seed, now) == 4
  assert losses[-1] < losses[0]
  assert jax.tree.structure(now) == jax.tree.structure(seed)
  assert isinstance(now['layers'][0], Layer) and now['unused'] is None
  # At most once for NumPy's arrays and once for JAX's.
  compiled: Any = step
  assert compiled._cache_size() <= 2
  for x, y in zip(jax.tree.leaves(seed), kept, strict=True):
    np.testing.assert_array_equal(x, y)  # inputs are not written to


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16, jnp.float16])
def test_the_sum_is_the_new_value_bit_for_bit(dtype):
  # Differences that no additive update gets right, signed zeros, NaN.
  old = jnp.asarray([1e4, 1.0, 0.0, -0.0, np.nan, 3.0], dtype)
  new = jnp.asarray([1e-4, np.nan, -0.0, 0.0, 2.0, 3.0], dtype)
  update = ExactUpdate.between(old, new)
  for got in (old + update, jax.jit(lambda p, u: p + u)(old, update)):
    np.testing.assert_array_equal(checks.bits(got), checks.bits(new))
  assert np.isnan(np.asarray(old + update, np.float32)[1])
  host = np.asarray(old)
  np.testing.assert_array_equal(
    checks.bits(np.asarray(host + update)), checks.bits(new)
  )


def test_an_additive_update_would_not_be_exact():
  # Why the update holds bits: 1e4 + (1e-4 − 1e4) is not 1e-4.
  old, new = np.float32(1e4), np.float32(1e-4)
  assert old + (new - old) != new


@pytest.mark.parametrize(
  'use',
  [
    lambda u: 2.0 * u,
    lambda u: u * 2.0,
    lambda u: u + u,
    lambda u: u + 1.0,
    lambda u: -u,
    lambda u: u - 1.0,
    lambda u: 1.0 - u,
    lambda u: u / 2.0,
    lambda u: 2.0 / u,
    lambda u: u**2,
    lambda u: abs(u),
    lambda u: jnp.ones(3) * u,
    lambda u: np.ones(3) * u,
    lambda u: jnp.sum(u),
    lambda u: np.asarray(u) + 1.0,
    # What optax does around it goes through the tree.
    lambda u: jnp.ones(3) + jax.tree.map(lambda x: 0.5 * x, u),
    lambda u: optax.apply_updates(
      jnp.ones(3), optax.scale(0.5).update(u, optax.ScaleState())[0]
    ),
    lambda u: optax.apply_updates(
      jnp.ones(3),
      optax.clip_by_global_norm(1.0).update(u, optax.EmptyState())[0],
    ),
    # Not the parameter that it was made for.
    lambda u: jnp.ones(4) + u,
    lambda u: jnp.ones((1, 3)) + u,
    lambda u: jnp.ones(3, jnp.bfloat16) + u,
    lambda u: 1.0 + u,
  ],
)
def test_any_other_use_of_an_update_is_refused(use):
  update = ExactUpdate.between(jnp.ones(3), jnp.arange(3.0))
  with pytest.raises(TypeError):
    use(update)


@pytest.mark.parametrize(
  ('dtype', 'jitted'),
  [
    (jnp.float32, False),
    (jnp.float32, True),
    (jnp.bfloat16, True),
    (jnp.float16, True),
  ],
)
def test_the_norm_of_updates_is_that_of_the_differences(dtype, jitted):
  rng = np.random.default_rng(0)
  seed = {
    'w': jnp.asarray(rng.normal(size=(8, 9)), dtype),
    'b': jnp.asarray(rng.normal(size=5), dtype),
  }
  tx = selective_tuning(
    optax.adamw(0.3, weight_decay=0.1), methods.dst(), epsilon=0.25
  )

  def update(gradients, state, params):
    updates, state = tx.update(gradients, state, params)
    return updates, state, optax.global_norm(updates)

  now, state = seed, tx.init(seed)
  for _ in range(3):
    gradients = jax.tree.map(
      lambda x: jnp.asarray(rng.normal(size=x.shape), dtype), seed
    )
    updates, state, norm = (jax.jit(update) if jitted else update)(
      gradients, state, now
    )
    new: Any = optax.apply_updates(now, updates)
    steps = [
      np.asarray(new[path], np.float64) - np.asarray(now[path], np.float64)
      for path in now
    ]
    expected = np.sqrt(sum(np.sum(step**2) for step in steps))
    assert expected > 0
    # The norm is computed in the parameters' dtype, as optax does.
    tolerance = 50 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(float(norm), expected, rtol=tolerance)
    np.testing.assert_array_equal(norm, optax.global_norm(updates))
    now = new


def test_updates_cross_a_jit_and_a_conditional():
  seed = {'w': jnp.float32([3, -2, 1, 0.5])}
  tx = selective_tuning(optax.sgd(0.1), methods.dst(), epsilon=0.25)
  updates, _ = jax.jit(tx.update)({'w': jnp.ones(4)}, tx.init(seed), seed)
  now = jax.jit(optax.apply_updates)(seed, updates)
  np.testing.assert_array_equal(now['w'], np.float32([2.9, -2, 1, 0.5]))
  zeros = jax.tree.map(jnp.zeros_like, updates)
  chosen = jax.lax.cond(jnp.bool_(False), lambda: updates, lambda: zeros)
  np.testing.assert_array_equal(
    optax.apply_updates(seed, chosen)['w'], seed['w']
  )


def test_zero_updates_change_nothing_so_multisteps_works():
  seed = {'w': jnp.float32([3, -2, 1, 0.5])}
  tx = optax.MultiSteps(
    selective_tuning(optax.sgd(0.1), methods.dst(), epsilon=0.25), 2
  )
  state, now = tx.init(seed), seed
  for t in range(4):
    updates, state = tx.update({'w': jnp.ones(4)}, state, now)
    now = optax.apply_updates(now, updates)
    if t == 0:
      np.testing.assert_array_equal(now['w'], seed['w'])
  # Two steps of the mean gradient 1.
  step = np.float32([0.1, 0, 0, 0])
  np.testing.assert_array_equal(now['w'], seed['w'] - step - step)


def test_extra_arguments_reach_the_inner_optimizer():
  seen = []

  def update(updates, state, params=None, *, value, **extra):
    seen.append((value, extra))
    return updates, state

  inner = optax.GradientTransformationExtraArgs(
    lambda params: optax.EmptyState(), update
  )
  seed = {'w': jnp.ones(3)}
  tx = selective_tuning(inner, methods.dst(), budget=1)
  tx.update(seed, tx.init(seed), seed, value=2.5, other=1)
  assert seen == [(2.5, {'other': 1})]
  # And an inner optimizer that takes none does not mind them.
  tx = selective_tuning(optax.sgd(0.1), methods.full())
  tx.update(seed, tx.init(seed), seed, value=2.5)


def test_without_parameters_it_raises():
  seed = {'w': jnp.ones(3)}
  tx = selective_tuning(optax.sgd(0.1), methods.dst(), budget=1)
  with pytest.raises(ValueError, match='needs update\\(grads, state, params'):
    tx.update(seed, tx.init(seed))


def test_wrong_settings_are_refused_by_init():
  tx = selective_tuning(optax.sgd(0.1), methods.dst())
  with pytest.raises(silos.SiloError, match='EPSILON'):
    tx.init({'w': jnp.ones(3)})
  with pytest.raises(ValueError, match='TRAIN_STEPS'):
    selective_tuning(optax.sgd(0.1), methods.id3(), budget=1).init(
      {'w': jnp.ones(3)}
    )
  with untyped.calls(), pytest.raises(ValueError, match='float64'):
    selective_tuning(optax.sgd(0.1), methods.dst(), budget=1).init(
      {'w': np.ones(3)}
    )


def test_stacks_keys_and_run_lengths_are_passed_on():
  seed = {'layers': {'mlp': jnp.arange(1.0, 13.0).reshape(2, 6)}}
  tx = selective_tuning(
    optax.sgd(1.0),
    methods.dst(),
    epsilon=1 / 6,
    stack_axes={'layers/mlp': 0},
  )
  gradient = jax.tree.map(jnp.ones_like, seed)
  updates, _ = tx.update(gradient, tx.init(seed), seed)
  now = optax.apply_updates(seed, updates)
  # The largest of each slice, not the two largest of all.
  moved = checks.changed(seed, now)['layers/mlp']
  assert moved.tolist() == [[False] * 5 + [True]] * 2
  grown = selective_tuning(
    optax.sgd(1.0), methods.id3(), budget=4, total_steps=2
  )
  updates, _ = grown.update(gradient, grown.init(seed), seed)
  assert count_changed(seed, optax.apply_updates(seed, updates)) == 2
  draws = []
  for key in (1, 2):
    tx = selective_tuning(
      optax.sgd(1.0), methods.random_mask(), budget=6, key=jax.random.key(key)
    )
    updates, _ = tx.update(gradient, tx.init(seed), seed)
    draws.append(checks.changed(seed, optax.apply_updates(seed, updates)))
  assert (draws[0]['layers/mlp'] != draws[1]['layers/mlp']).any()
