"""Invariants that every method keeps, with every inner optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dst_t5x import methods, plans, selective, thresholds
from tests import cases, checks, reference
from tests.cases import CASES, SHAPES, SILO_OF, STEPS

SELECTIVE = [name for name in CASES if name != 'full']
EXACT = [name for name in SELECTIVE if not CASES[name].approximate]
SCORED = [name for name in SELECTIVE if CASES[name].score]
READS_GRADIENT = [
  name
  for name in SELECTIVE
  if set(CASES[name].method.score.reads) & {'gradient', 'proposed'}
]


def scores_of(name, seed, params, proposed, gradient):
  """Returns the scores of a step, in NumPy, by path."""

  def f32(x):
    return np.asarray(x, np.float32)

  if name in reference.DISTANCES:
    distance = reference.DISTANCES[name]
    return {p: distance(f32(seed[p]), f32(proposed[p])) for p in seed}
  if name == 'd3':
    return {
      p: reference.d3(f32(params[p]), f32(gradient[p]), 1.0, 2) for p in seed
    }
  if name == 'small':  # any positive numbers in the order of −|θ⁰| will do
    return {p: 1 / (1 + np.abs(f32(seed[p]))) for p in seed}
  assert name == 'norm'
  return {p: np.full(SHAPES[p], float('norm/' in p), np.float32) for p in seed}


@pytest.mark.parametrize('name', CASES)
def test_never_more_than_the_budget_and_the_rest_is_the_seed(name):
  run = cases.run(name)
  for t in range(1, STEPS + 1):
    checks.within_budget(
      run.seed, run.params[t], SILO_OF[run.case.silos], run.case.k(t)
    )


@pytest.mark.parametrize('name', EXACT)
def test_the_whole_budget_is_used(name):
  # Every silo with k > 0 has that many positive, untied scores.
  run = cases.run(name)
  for t in range(1, STEPS + 1):
    checks.budget_used(
      run.seed, run.params[t], SILO_OF[run.case.silos], run.case.k(t)
    )


@pytest.mark.parametrize('name', SCORED)
def test_the_subset_is_the_top_of_the_scores_and_holds_the_proposal(name):
  run = cases.run(name)
  case, silo_of = run.case, SILO_OF[run.case.silos]
  held = {p: np.zeros(s, bool) for p, s in SHAPES.items()}
  for t in range(STEPS):
    before, after = checks.flat(run.params[t]), checks.flat(run.params[t + 1])
    proposed = cases.proposed(run.states[t + 1])
    scores = scores_of(
      case.score, run.seed, before, proposed, run.gradients[t]
    )
    if case.approximate and not case.grows:
      subset = checks.changed(run.seed, after)
      checks.nothing_better_outside(scores, subset, silo_of)
    else:
      due = case.k(t + 1)
      if case.grows:
        counts = checks.per_silo(held, silo_of, due)
        due = {silo: due[silo] - counts[silo] for silo in due}
        if t >= case.grows:
          due = dict.fromkeys(due, 0)
        scores = {p: np.where(held[p], 0, x) for p, x in scores.items()}
      subset = checks.top(scores, silo_of, due)
      if case.grows:
        held = subset = {p: held[p] | subset[p] for p in held}
    checks.reset_to_seed(run.seed, after, proposed, subset)


@pytest.mark.parametrize('name', [n for n in EXACT if CASES[n].grows])
def test_a_kept_subset_only_grows(name):
  run = cases.run(name)
  before = checks.changed(run.seed, run.params[1])
  for t in range(2, STEPS + 1):
    now = checks.changed(run.seed, run.params[t])
    assert all((now[p] >= before[p]).all() for p in now)
    before = now


@pytest.mark.parametrize('name', SELECTIVE)
def test_the_reported_size_and_churn_are_the_counted_ones(name):
  run = cases.run(name)
  before = checks.changed(run.seed, run.params[0])
  for t in range(1, STEPS + 1):
    metrics = run.states[t].metrics
    now = checks.changed(run.seed, run.params[t])
    counts = checks.per_silo(now, SILO_OF[run.case.silos], run.case.k(t))
    sizes = dict(
      zip(run.plan.silos.names, metrics.subset_size.tolist(), strict=True)
    )
    entered = sum(int((now[p] & ~before[p]).sum()) for p in now)
    if run.case.dtype == np.float32:
      assert sizes == counts
      assert int(metrics.churn) == entered
    else:  # a selected bfloat16 may round back to its seed
      assert all(sizes[silo] >= counts[silo] for silo in counts)
    before = now


@pytest.mark.parametrize('name', CASES)
def test_one_compilation_serves_all_steps(name):
  run = cases.run(name)
  assert run.step._cache_size() == 1


@pytest.mark.parametrize('name', CASES)
def test_resumed_is_uninterrupted_and_not_a_cold_start(name):
  run = cases.run(name)
  half = STEPS // 2
  saved = jax.tree.map(np.asarray, (run.states[half], run.params[half]))
  state, params = jax.tree.map(jnp.asarray, saved)
  cold_state = run.start(run.seed)
  cold_params = params
  for gradient in run.gradients[half:]:
    params, state = run.go(gradient, state, params)
    cold_params, cold_state = run.go(gradient, cold_state, cold_params)
  checks.same_bits(run.params[-1], params)
  for a, b in zip(
    jax.tree.leaves(run.states[-1]), jax.tree.leaves(state), strict=True
  ):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
  different = checks.changed(run.params[-1], cold_params)
  assert any(x.any() for x in different.values())


@pytest.mark.parametrize('name', CASES)
def test_the_same_inputs_give_the_same_bits_again(name):
  run = cases.run(name)
  params, state = run.go(run.gradients[0], run.states[0], run.params[0])
  checks.same_bits(run.params[1], params)
  np.testing.assert_array_equal(
    state.metrics.threshold, run.states[1].metrics.threshold
  )


@pytest.mark.parametrize('name', SELECTIVE)
def test_ties_are_dropped_together(name):
  run = cases.run(name)
  silo_of = SILO_OF[run.case.silos]
  alike = {p: np.full(s, 0.5, run.case.dtype) for p, s in SHAPES.items()}
  params, state = cases.on_device(alike), run.start(alike)
  for t in range(2):
    params, state = run.go(alike, state, params)
    checks.within_budget(alike, params, silo_of, run.case.k(t + 1))
    if run.case.method.name != 'random_mask':
      checks.equal_entries_move_together(alike, params)


@pytest.mark.parametrize('name', ['dst', 'dst-tensor', 'dst-algorithm2'])
def test_duplicates_across_the_edge_all_stay_out(name):
  run = cases.run(name)
  twins = {p: x.copy() for p, x in run.seed.items()}
  gradient = {p: x.copy() for p, x in run.gradients[0].items()}
  for tree in (twins, gradient):
    tree['encoder/layers_0/mlp/wo/kernel'][1:] = tree[
      'encoder/layers_0/mlp/wo/kernel'
    ][0]  # three of each score: k = 2 or 3 cuts through a group or fits one
  state = run.start(twins)
  params, _ = run.go(gradient, state, cases.on_device(twins))
  checks.within_budget(
    twins, params, SILO_OF[run.case.silos], run.case.k(1)
  )
  moved = checks.changed(twins, params)['encoder/layers_0/mlp/wo/kernel']
  assert (moved == moved[0]).all()


@pytest.mark.parametrize('name', SELECTIVE)
def test_zero_seeds_and_zero_gradients(name):
  run = cases.run(name)
  nothing = {p: np.zeros(s, run.case.dtype) for p, s in SHAPES.items()}
  params, state = run.go(
    run.gradients[0], run.start(nothing), cases.on_device(nothing)
  )
  selective.raise_if_invalid(run.plan, state)
  checks.within_budget(
    nothing, params, SILO_OF[run.case.silos], run.case.k(1)
  )
  if run.case.score == 'inverse_relative':  # |θ⁰ …| = 0 everywhere
    checks.same_bits(nothing, params)


@pytest.mark.parametrize('bad', [np.nan, np.inf])
@pytest.mark.parametrize('name', READS_GRADIENT)
def test_a_bad_score_is_reported_with_its_parameter(name, bad):
  run = cases.run(name)
  path = 'encoder/layers_0/mlp/wo/kernel'
  gradient = {p: x.copy() for p, x in run.gradients[0].items()}
  gradient[path][1, 2] = bad
  params, state = run.go(gradient, run.states[0], run.params[0])
  # It is not forgotten in the steps after.
  _, later = run.go(run.gradients[1], state, run.params[1])
  for s in (state, later):
    checks.reports(
      lambda s=s: selective.raise_if_invalid(run.plan, s),
      selective.NonFiniteScoreError,
      path,
    )
  if run.case.optimizer == 'adamw':  # which does not spread it
    with pytest.raises(selective.NonFiniteScoreError) as error:
      selective.raise_if_invalid(run.plan, state)
    assert 'attention' not in str(error.value)
  selective.raise_if_invalid(run.plan, run.states[-1])


def test_a_bad_seed_is_reported_by_pafi():
  run = cases.run('pafi')
  seed = run.seed | {'logit_scale': np.asarray(np.nan, np.float32)}
  _, state = run.go(run.gradients[0], run.start(seed), run.params[0])
  with pytest.raises(selective.NonFiniteScoreError, match='logit_scale'):
    selective.raise_if_invalid(run.plan, state)


SMALL = {'a/kernel': (4, 5), 'b': ()}
COMPARED = {
  'dst': methods.dst(),
  'algorithm2': methods.dst(
    distance='relative', threshold=thresholds.algorithm2
  ),
  'by_sorting': methods.dst(
    distance='absolute', threshold=thresholds.by_sorting
  ),
  'id3': methods.id3(steps=2),
}


@pytest.mark.parametrize('name', COMPARED)
def test_jit_does_what_eager_does(name):
  # The "gradient" is the update, so both propose the same bits.
  rng = np.random.default_rng(3)
  params = cases.on_device(
    {p: np.float32(rng.normal(size=s)) for p, s in SMALL.items()}
  )
  plan = plans.make(COMPARED[name], params, budget=9)

  def propose(update, inner, params):
    return jax.tree.map(jnp.add, params, update), inner

  def step(update, state, params):
    return selective.step(plan, propose, update, state, params)

  jitted = jax.jit(step)
  state = selective.init(plan, params, (), key=jax.random.key(1))
  eager_state, eager_params = state, params
  for _ in range(2):
    update = jax.tree.map(
      lambda x: jnp.asarray(0.1 * rng.normal(size=x.shape), jnp.float32), params
    )
    params, state = jitted(update, state, params)
    with jax.disable_jit():
      eager_params, eager_state = step(update, eager_state, eager_params)
    checks.same_bits(params, eager_params)
    for a, b in zip(
      jax.tree.leaves(state), jax.tree.leaves(eager_state), strict=True
    ):
      np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
