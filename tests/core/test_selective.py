"""The step on one page: hand-worked runs, and what each method declares."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dst_t5x.arrays.paths import unflatten
from dst_t5x.core import methods, plans, selective, thresholds
from tests import checks


def updating(updates, inner, params):
  """Takes the "gradient" for the update."""
  return jax.tree.map(jnp.add, params, updates), inner


def stepping(plan, propose=updating):
  return jax.jit(
    lambda u, state, params: selective.step(plan, propose, u, state, params)
  )


def test_dst_by_hand():
  # d = |θ⁰ (θ̂ − θ⁰)|, k = 2 of 4.
  seed = {'w': jnp.float32([4, 2, 1, -8])}
  plan = plans.make(methods.dst(), seed, budget=2)
  step, state = stepping(plan), selective.init(plan, seed, ())
  # θ̂ = [5, 0, 1, −8.25]: d = [4, 4, 0, 2]. Two tie at the top, and both fit.
  params, state = step({'w': jnp.float32([1, -2, 0, -0.25])}, state, seed)
  assert params['w'].tolist() == [5, 0, 1, -8]
  assert state.metrics.subset_size.tolist() == [2]
  assert int(state.metrics.churn) == 2
  # θ̂ = [5, 1, 4, −9]: d = [4, 2, 3, 8]. The second goes back to 2, the last
  # comes in; its earlier update of −0.25 is forgotten.
  params, state = step({'w': jnp.float32([0, 1, 3, -1])}, state, params)
  assert params['w'].tolist() == [5, 2, 1, -9]
  assert int(state.metrics.churn) == 1
  # θ̂ = [4, 3, 2, −9]: d = [0, 2, 1, 8]: the first returned by itself.
  params, state = step({'w': jnp.float32([-1, 1, 1, 0])}, state, params)
  assert params['w'].tolist() == [4, 3, 1, -9]
  # θ̂ = [4.25, 2.5, 1, −8]: d = [1, 1, 0, 0].
  params, state = step({'w': jnp.float32([0.25, -0.5, 0, 1])}, state, params)
  assert params['w'].tolist() == [4.25, 2.5, 1, -8]
  # θ̂ = [4.25, 2.5, 2, −8]: d = [1, 1, 1, 0]. One more than k ties: nobody, as
  # the next step chooses anew.
  params, state = step({'w': jnp.float32([0, 0, 1, 0])}, state, params)
  assert params['w'].tolist() == [4, 2, 1, -8]
  assert state.metrics.subset_size.tolist() == [0]
  params, state = step({'w': jnp.float32([0.25, 0.5, 0, 0])}, state, params)
  assert params['w'].tolist() == [4.25, 2.5, 1, -8]
  # θ̂ = [4, 2, 1, −8]: nothing left.
  params, state = step({'w': jnp.float32([-0.25, -0.5, 0, 0])}, state, params)
  assert params['w'].tolist() == [4, 2, 1, -8]
  assert state.metrics.subset_size.tolist() == [0]
  assert int(state.count) == 7


def test_id3_by_hand():
  # H = |∇| / (|θ| + 1)²; B = 2 over T = 2, one a step.
  seed = {'w': jnp.float32([1, 0, 3, 7])}
  plan = plans.make(methods.id3(steps=2), seed, budget=2)
  step, state = stepping(plan), selective.init(plan, seed, ())
  # H = [0.5, 1, 0.25, 2]: the last.
  params, state = step({'w': jnp.float32([2, 1, 4, 128])}, state, seed)
  assert params['w'].tolist() == [1, 0, 3, 135]
  # The last is in already; of the others H = [1, 3, 2]: the second. The last
  # moves on though its own H is 0.
  params, state = step({'w': jnp.float32([4, 3, 32, 1])}, state, params)
  assert params['w'].tolist() == [1, 3, 3, 136]
  assert int(state.metrics.churn) == 1
  # Full: what ranks first now does not enter.
  params, state = step({'w': jnp.float32([99, 1, 99, 0])}, state, params)
  assert params['w'].tolist() == [1, 4, 3, 136]
  assert int(state.metrics.churn) == 0
  assert state.metrics.subset_size.tolist() == [2]


def test_dst_feeds_the_inner_optimizer_dense_gradients():
  # Its momentum is that of full updates (section 3 of the paper); the same
  # momentum without DST is the expectation.
  rng = np.random.default_rng(0)
  seed = {'w': jnp.asarray(rng.normal(size=8), jnp.float32)}
  plan = plans.make(methods.dst(), seed, budget=2)
  tx = optax.trace(0.5)

  def propose(gradients, inner, params):
    u, inner = tx.update(gradients, inner)
    return optax.apply_updates(params, u), inner

  state = selective.init(plan, seed, tx.init(seed))
  params, step, m = seed, stepping(plan, propose), np.zeros(8, np.float32)
  for _ in range(3):
    gradient = rng.integers(-8, 8, size=8).astype(np.float32)
    params, state = step({'w': jnp.asarray(gradient)}, state, params)
    m = gradient + np.float32(0.5) * m
    np.testing.assert_array_equal(state.inner.trace['w'], m)
  assert np.count_nonzero(m) > 2


@pytest.mark.parametrize(
  'method',
  [
    methods.id3(steps=2),
    methods.pafi_masked(),
    methods.random_masked(),
    methods.random_mask(),
  ],
  ids=lambda method: method.name,
)
def test_masked_gradients_belong_to_the_subset_alone(method):
  seed = {'w': jnp.arange(1.0, 9.0)}
  plan = plans.make(method, seed, budget=2)

  def propose(gradients, inner, params):
    del inner
    return jax.tree.map(jnp.add, params, gradients), gradients

  state = selective.init(plan, seed, seed)
  step, params = stepping(plan, propose), seed
  for size in (1, 2) if method.name == 'id3' else (2, 2):
    params, state = step({'w': jnp.full(8, 3.0)}, state, params)
    # All D3 scores differ: so do the parameters.
    inside = checks.changed(seed, params)['w']
    assert np.count_nonzero(inside) == size
    outside = 0 if method.mask_gradients else 3
    np.testing.assert_array_equal(
      state.inner['w'], np.where(inside, 3, outside)
    )


def test_the_seed_is_a_copy():
  # A host may donate its parameters to the first step.
  seed = {'w': jnp.float32([1, 2, 3])}
  kept = np.asarray(seed['w']).copy()
  plan = plans.make(methods.dst(), seed, budget=1)
  state = selective.init(plan, seed, ())
  step = jax.jit(
    lambda u, state, params: selective.step(plan, updating, u, state, params),
    donate_argnums=(1, 2),
  )
  params, state = step({'w': jnp.float32([0, 0, 1])}, state, seed)
  np.testing.assert_array_equal(state.seed['w'], kept)
  assert params['w'].tolist() == [1, 2, 4]


def test_keys_draw_different_random_subsets():
  seed = {'a': jnp.ones(50), 'b': jnp.ones((50, 2))}
  plan = plans.make(methods.random_mask(), seed, budget=10)
  step, update = stepping(plan), jax.tree.map(jnp.ones_like, seed)
  subsets = []
  for key in (0, 0, 1):
    state = selective.init(plan, seed, (), key=jax.random.key(key))
    params, _ = step(update, state, seed)
    subsets.append(checks.changed(seed, params))
    assert sum(int(x.sum()) for x in subsets[-1].values()) == 10
  assert all((subsets[0][p] == subsets[1][p]).all() for p in seed)
  assert any((subsets[0][p] != subsets[2][p]).any() for p in seed)
  # Not the same places in every tensor.
  assert (subsets[0]['a'] != subsets[0]['b'][:, 0]).any()


STACKED = {
  'decoder/layers/attention/query/kernel': (4, 2, 5),
  'decoder/layers/mlp/wi/kernel': (2, 10, 4),
  'token_embedder/embedding': (8, 5),
}
AXES = {
  'decoder/layers/attention/query/kernel': 1,  # where T5X scans
  'decoder/layers/mlp/wi/kernel': 0,
}


def unstacked(tree):
  """Returns the same parameters with a tensor of its own for every layer."""
  flat = {}
  for path, x in checks.flat(tree).items():
    if path in AXES:
      for i in range(2):
        name = path.replace('layers', f'layers_{i}')
        flat[name] = np.take(x, i, axis=AXES[path])
    else:
      flat[path] = x
  return unflatten(flat)


@pytest.mark.parametrize(
  'method',
  [
    methods.dst(),
    methods.dst(threshold=thresholds.algorithm2),
    methods.dst(distance='relative', threshold=thresholds.by_sorting),
    methods.id3(steps=2, silo_scheme='module_and_layer'),
  ],
  ids=['exact', 'algorithm2', 'by_sorting', 'id3'],
)
def test_a_scanned_stack_is_its_layers_one_by_one(method):
  rng = np.random.default_rng(5)

  def draw(scale=1.0):
    return unflatten(
      {p: np.float32(scale * rng.normal(size=s)) for p, s in STACKED.items()}
    )

  def draw_tied():
    return unflatten(
      {p: np.float32(rng.choice([-1, 1, 2], s)) for p, s in STACKED.items()}
    )

  plan = plans.make(method, draw(), epsilon=0.2, stack_axes=AXES)
  layers = plans.make(method, unstacked(draw()), epsilon=0.2)
  assert plan.silos.names == layers.silos.names
  assert dict(zip(plan.silos.names, plan.budgets, strict=True)) == {
    **{f'decoder/layers_{i}/attention': 4 for i in range(2)},
    **{f'decoder/layers_{i}/mlp': 8 for i in range(2)},
    'token_embedder': 8,
  }
  step, step_layers = stepping(plan), stepping(layers)
  a = b = a_state = b_state = None
  for t in range(5):
    if t in (0, 3):  # the last two steps are full of ties
      a = draw() if t == 0 else draw_tied()
      b = unstacked(a)
      a_state = selective.init(plan, a, ())
      b_state = selective.init(layers, b, ())
    update = draw(0.5) if t < 3 else draw_tied()
    a, a_state = step(update, a_state, a)
    b, b_state = step_layers(unstacked(update), b_state, b)
    checks.same_bits(unstacked(a), b)
    thresholds = a_state.metrics.threshold
    assert thresholds.tolist() == b_state.metrics.threshold.tolist()


def test_a_bad_slice_of_a_stack_is_named():
  seed = {'layers': {'mlp': jnp.ones((3, 4))}}
  plan = plans.make(methods.dst(), seed, budget=3, stack_axes={'layers/mlp': 0})
  update = {'layers': {'mlp': jnp.zeros((3, 4)).at[2, 1].set(jnp.nan)}}
  _, state = stepping(plan)(update, selective.init(plan, seed, ()), seed)
  with pytest.raises(
    selective.NonFiniteScoreError,
    match=r'in: layers/mlp\[2\] \(1\) \(in how many of the 1 steps\)',
  ):
    selective.raise_if_invalid(plan, state)


def test_a_proposal_of_another_type_is_refused():
  seed = {'w': jnp.ones(3, jnp.bfloat16)}
  plan = plans.make(methods.dst(), seed, budget=1)

  def propose(gradients, inner, params):
    return jax.tree.map(lambda p: p.astype(jnp.float32), params), inner

  state = selective.init(plan, seed, ())
  with pytest.raises(TypeError, match='float32, the seed is bfloat16'):
    jax.eval_shape(stepping(plan, propose), seed, state, seed)
