"""One device and eight: the same bits, and one small all-reduce a pass."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dst_t5x.arrays.paths import unflatten
from dst_t5x.core import (
  counting,
  methods,
  plans,
  selective,
  silos,
  subsets,
  thresholds,
)
from tests import checks

SHAPES = {
  'encoder/layers/mlp/wi/kernel': (8, 2, 16),  # scanned along axis 1
  'encoder/layers_0/attention/query/kernel': (8, 16),
  'norm/scale': (3,),  # divides by nothing
}
STACKS = {'encoder/layers/mlp/wi/kernel': 1}
P = PartitionSpec
REPLICATED = dict.fromkeys(SHAPES, P())
SHARDED = {
  'encoder/layers/mlp/wi/kernel': P('data', None, 'model'),
  'encoder/layers_0/attention/query/kernel': P(None, ('model', 'data')),
  'norm/scale': P(),
}
# Some axes of the mesh hold copies, which share the counting.
PARTLY = {
  'encoder/layers/mlp/wi/kernel': P(None, None, 'model'),
  'encoder/layers_0/attention/query/kernel': P('data'),
  'norm/scale': P(),
}
# The scanned layers lie on different devices.
BY_LAYER = {
  'encoder/layers/mlp/wi/kernel': P(None, 'data', 'model'),
  'encoder/layers_0/attention/query/kernel': P(None, 'model'),
  'norm/scale': P(),
}


def partitioning_of(name):
  if name is None:  # one device
    return None
  shape, axes, specs = {
    '8, replicated': ((8,), ('data',), REPLICATED),
    '2x4, sharded': ((2, 4), ('data', 'model'), SHARDED),
    '2x4, partly sharded': ((2, 4), ('data', 'model'), PARTLY),
    '2x4, by layer': ((2, 4), ('data', 'model'), BY_LAYER),
  }[name]
  devices = np.asarray(jax.devices()[:8]).reshape(shape)
  return counting.Partitioning(Mesh(devices, axes), specs)


LAYOUTS = ['8, replicated', '2x4, sharded', '2x4, partly sharded']
METHODS = {
  'dst': methods.dst(),
  'dst algorithm2': methods.dst(
    distance='absolute', threshold=thresholds.algorithm2
  ),
  'dst by_sorting': methods.dst(
    distance='absolute', threshold=thresholds.by_sorting
  ),
  'dst_no_churn': methods.dst_no_churn(),
  'random_mask': methods.random_mask(),
  'pafi': methods.pafi(),
  'bitfit': methods.bitfit(pattern='norm/scale'),
  'id3': methods.id3(steps=2),
  'repeat_d3': methods.repeat_d3(),
}
# Every method on one mesh; the default on all.
CASES = [(name, '2x4, partly sharded') for name in METHODS] + [
  ('dst', name) for name in (*LAYOUTS[:2], '2x4, by layer')
]


def propose(updates, inner, params):
  """Takes the "gradient" for the update: all devices propose the same bits."""
  return jax.tree.map(jnp.add, params, updates), inner


def draw(seed):
  rng = np.random.default_rng(seed)
  flat = {p: np.float32(rng.normal(size=s)) for p, s in SHAPES.items()}
  flat['norm/scale'][:] = 1.0  # ties
  return unflatten(flat)


def place(tree, partitioning):
  if partitioning is None:
    return jax.tree.map(jnp.asarray, tree)
  return unflatten(
    {
      path: jax.device_put(
        x, NamedSharding(partitioning.mesh, partitioning.specs[path])
      )
      for path, x in checks.flat(tree).items()
    }
  )


@functools.cache
def compiled(name, mesh):
  """Returns a compiled step, and parameters and state to start from."""
  method, partitioning = METHODS[name], partitioning_of(mesh)
  budget = {} if method.pattern else {'epsilon': 0.1}
  plan = plans.make(
    method, draw(0), stack_axes=STACKS, partitioning=partitioning, **budget
  )
  params = place(draw(0), partitioning)
  state = selective.init(plan, params, (), key=jax.random.key(5))
  if partitioning is not None:  # what follows no parameter is on all devices
    everywhere = NamedSharding(partitioning.mesh, P())
    state = jax.tree.map(
      lambda x: (
        x
        if isinstance(x.sharding, NamedSharding)
        else jax.device_put(x, everywhere)
      ),
      state,
    )
  step = jax.jit(
    lambda u, state, params: selective.step(plan, propose, u, state, params)
  )
  return step.lower(place(draw(1), partitioning), state, params).compile(), (
    params,
    state,
  )


@functools.cache
def trajectory(name, mesh):
  """Returns parameters, thresholds, carries and subset sizes of two steps."""
  step, (params, state) = compiled(name, mesh)
  steps = []
  for t in range(1, 3):
    params, state = step(place(draw(t), partitioning_of(mesh)), state, params)
    found = {
      'carry': state.carry,
      'nonfinite': state.nonfinite,
      **state.metrics._asdict(),
    }
    steps.append((checks.flat(params), checks.flat(found)))
  return steps


@pytest.mark.parametrize('name, mesh', CASES)
def test_eight_devices_do_what_one_does(name, mesh):
  one, eight = trajectory(name, None), trajectory(name, mesh)
  changed = False
  for (params, found), (params_8, found_8) in zip(one, eight, strict=True):
    checks.same_bits(params, params_8)
    checks.same_bits(found, found_8)
    changed |= any(x.any() for x in checks.changed(draw(0), params).values())
  assert changed


@pytest.mark.parametrize('mesh', [None, *LAYOUTS])
def test_ties_go_to_the_same_positions_on_every_mesh(mesh):
  # One silo, so that its last place falls into any of the tensors.
  partition = silos.assign(SHAPES, scheme='none')
  partitioning = partitioning_of(mesh)

  @jax.jit
  def run(scores, budget):
    table = counting.ScoreTable(lambda x: x, {p: (scores[p],) for p in scores})
    found = thresholds.exact(
      table, partition, budget, jnp.zeros(1), partitioning
    )
    return subsets.chosen(table, partition, found), found.selected

  rng = np.random.default_rng(0)
  scores = {p: np.float32(rng.integers(0, 3, s)) for p, s in SHAPES.items()}
  placed = scores
  if partitioning is not None:
    placed = flat_placed(unflatten(scores), partitioning)
  for budget in (1, 60, 200, 264, 300, 387):
    masks, selected = run(placed, jnp.asarray([budget]))
    wanted = checks.top(scores, dict.fromkeys(SHAPES, 0), {0: budget})
    for path in SHAPES:
      np.testing.assert_array_equal(masks[path], wanted[path], path)
    positive = sum(int((x > 0).sum()) for x in scores.values())
    assert selected.tolist() == [min(budget, positive)]


def collectives(text):
  """Returns how often each collective stands in a compiled program.

  Those within the body of a loop are counted apart. A combined all-reduce of
  several arrays is one.
  """
  bodies = set(re.findall(r'body=%?([\w.\-]+)', text))
  counts = {'outside': {}, 'loop': {}}
  where = 'outside'
  for line in text.splitlines():
    header = re.match(r'(?:ENTRY )?%?([\w.\-]+) \(.*\{$', line)
    if header:
      where = 'loop' if header[1] in bodies else 'outside'
    found = re.search(
      r' (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)'
      r'(?:-start)?\(',
      line,
    )
    if found:
      counts[where][found[1]] = counts[where].get(found[1], 0) + 1
  return counts


def searched(search, partitioning):
  """Returns the compiled text of a threshold search alone."""
  shapes = dict(SHAPES)
  partition = silos.assign(shapes, stack_axes=STACKS)
  budgets = jnp.full(len(partition.names), 2, jnp.int32)

  @jax.jit
  def run(seed, params, carry):
    table = counting.ScoreTable(
      lambda a, b: jnp.abs(a * (b - a)),
      {p: (seed[p], params[p]) for p in SHAPES},
    )
    found = search(table, partition, budgets, carry, partitioning)
    return found.threshold, found.carry, found.selected

  arguments = [flat_placed(draw(t), partitioning) for t in (0, 1)]
  carry = jnp.zeros(len(partition.names))
  return run.lower(*arguments, carry).compile().as_text()


def flat_placed(tree, partitioning):
  return {
    path: jax.device_put(
      x, NamedSharding(partitioning.mesh, partitioning.specs[path])
    )
    for path, x in checks.flat(tree).items()
  }


@pytest.mark.parametrize('mesh', LAYOUTS)
def test_the_exact_search_reduces_once_a_pass_and_gathers_nothing(mesh):
  counts = collectives(searched(thresholds.exact, partitioning_of(mesh)))
  # All passes are the loop's.
  assert counts == {'outside': {}, 'loop': {'all-reduce': 1}}


def test_algorithm2_reduces_once_a_pass_and_gathers_nothing():
  counts = collectives(
    searched(thresholds.algorithm2, partitioning_of('2x4, partly sharded'))
  )
  # m = 3 halvings and the two ends at once.
  assert counts == {'outside': {'all-reduce': 4}, 'loop': {}}


@pytest.mark.parametrize('name, outside', [('dst', 1), ('random_mask', 0)])
def test_the_step_gathers_nothing(name, outside):
  # DST counts the churn.
  step, _ = compiled(name, '2x4, partly sharded')
  assert collectives(step.as_text()) == {
    'outside': {'all-reduce': outside} if outside else {},
    'loop': {'all-reduce': 1},
  }
