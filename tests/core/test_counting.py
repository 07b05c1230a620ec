"""Counts above thresholds, against NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from dst_t5x.core import counting, score_stacks, silo_rows, silos

SHAPES = {'a/stack': (3, 4, 5), 'a/w': (6, 8), 'b': ()}
AXES = {'a/stack': 1}
SILOS = silos.assign(SHAPES, scheme='tensor', stack_axes=AXES)
ROWS = ('a/stack[0]', 'a/stack[1]', 'a/stack[2]', 'a/stack[3]', 'a/w', 'b')


def table(scores, fn=lambda x: x):
  return counting.ScoreTable(
    fn, {p: (jnp.asarray(x),) for p, x in scores.items()}
  )


def scores(seed=0):
  rng = np.random.default_rng(seed)
  return {p: np.float32(rng.random(s)) for p, s in SHAPES.items()}


def in_numpy(values, thresholds):
  rows = [values['a/stack'][:, i] for i in range(4)]
  rows += [values['a/w'], values['b']]
  return [
    [int((row > t).sum()) for t in ts]
    for row, ts in zip(rows, thresholds, strict=True)
  ]


@pytest.mark.parametrize('width', [1, 15])
def test_counts_are_numpys(width):
  assert counting.row_names(SILOS) == SILOS.names == ROWS
  values = scores()
  thresholds = np.random.default_rng(1).random((6, width)).astype(np.float32)
  thresholds[4, 0] = values['a/w'][2, 3]  # above, not at
  got = counting.count(table(values), SILOS, jnp.asarray(thresholds))
  assert got.tolist() == in_numpy(values, thresholds)


def test_the_function_is_applied_and_nan_counts_as_infinite():
  values = {p: np.full(s, -2, np.float32) for p, s in SHAPES.items()}
  values['a/w'][0, :3] = np.nan, np.inf, 0
  largest = np.full((6, 2), [1.5, np.finfo(np.float32).max], np.float32)
  got = counting.count(table(values, jnp.abs), SILOS, jnp.asarray(largest))
  assert got.tolist() == [[15, 0]] * 4 + [[47, 2], [1, 0]]


def test_silos_that_are_skipped_count_nothing_wrong():
  values = scores()
  thresholds = jnp.full((6, 2), 0.5)
  full = counting.count(table(values), SILOS, thresholds)
  skip = jnp.asarray([True, True, True, True, False, True])
  stacks = score_stacks.stack(table(values), SILOS, None)
  got = counting.count_by_row(stacks, thresholds, skip=skip)
  assert got[4].tolist() == full[4].tolist()
  assert got.tolist() == [[0, 0]] * 4 + [full[4].tolist(), [0, 0]]


def test_per_silo_adds_rows_and_stops_at_the_top():
  two = silos.assign({'a/u': (1,), 'a/v': (1,), 'b/w': (1,)})
  top = 2**31 - 1
  rows = jnp.asarray([[top, 2**30, 5], [top, 2**30 - 1, 7], [top, 3, 0]])
  got = silo_rows.per_silo(two, rows)
  assert got.tolist() == [[top, top, 12], [top, 3, 0]]


def test_a_tensor_of_two_to_the_31_numbers_in_one_silo_is_refused():
  one = silos.assign({'w': (2**16, 2**15)}, stack_axes={})
  huge = jax.ShapeDtypeStruct((2**16, 2**15), jnp.float32)

  def run(x):
    t = counting.ScoreTable(lambda y: y, {'w': (x,)})
    return counting.count(t, one, jnp.zeros((1, 1)))

  with pytest.raises(ValueError, match="'w' has 2147483648 numbers"):
    jax.eval_shape(run, huge)


MESHES = {
  '4': ((4,), ('data',)),
  '8': ((8,), ('data',)),
  '2x4': ((2, 4), ('data', 'model')),
}
SPECS = {
  'replicated': {p: PartitionSpec() for p in SHAPES},
  'sharded': {
    'a/stack': PartitionSpec(None, None, None),
    'a/w': PartitionSpec(None, 'model'),
    'b': PartitionSpec(),
  },
  'both axes': {
    'a/stack': PartitionSpec(),
    'a/w': PartitionSpec('data', ('model',)),
    'b': PartitionSpec(),
  },
}


@pytest.mark.parametrize(
  'mesh, specs',
  [('8', 'replicated'), ('2x4', 'sharded'), ('2x4', 'both axes')],
)
def test_counts_on_a_mesh_are_those_of_one_device(mesh, specs):
  shape, names = MESHES[mesh]
  devices = Mesh(np.asarray(jax.devices()[:8]).reshape(shape), names)
  partitioning = counting.Partitioning(devices, SPECS[specs])
  values = scores(2)
  thresholds = np.random.default_rng(1).random((6, 3)).astype(np.float32)
  got = jax.jit(
    lambda v, t: counting.count(table(v), SILOS, t, partitioning=partitioning)
  )(values, thresholds)
  assert got.tolist() == in_numpy(values, thresholds)


@pytest.mark.parametrize(
  'mesh, spec',
  [
    ('4', PartitionSpec(None, 'data')),
    ('2x4', PartitionSpec(None, 'model')),
    ('2x4', PartitionSpec(None, 'model', 'data')),
    ('2x4', PartitionSpec('data', ('model',))),
  ],
)
def test_each_device_counts_its_own_slices_of_a_stack(mesh, spec):
  shapes = {'a/stack': (4, 8, 6), 'b/stack': (4, 8, 6), 'c/w': (4, 6)}
  partition = silos.assign(
    shapes, scheme='tensor', stack_axes={'a/stack': 1, 'b/stack': 1}
  )
  shape, names = MESHES[mesh]
  devices = Mesh(
    np.asarray(jax.devices()[: math.prod(shape)]).reshape(shape), names
  )
  specs = {'a/stack': spec, 'b/stack': PartitionSpec(), 'c/w': PartitionSpec()}
  partitioning = counting.Partitioning(devices, specs)
  rng = np.random.default_rng(3)
  values = {p: np.float32(rng.integers(0, 4, s)) for p, s in shapes.items()}
  bounds = rng.integers(0, 4, (17, 3)).astype(np.float32)
  score = rng.integers(0, 4, 17).astype(np.float32)
  cutoffs = rng.integers(0, 24, (17, 2)).astype(np.int32)
  skip = np.arange(17) % 5 == 0
  rows = [values[p][:, i] for p in ('a/stack', 'b/stack') for i in range(8)]
  rows.append(values['c/w'])

  @jax.jit
  def run(values, bounds, score, cutoffs, skip):
    stacks = score_stacks.stack(table(values), partition, partitioning)
    counts = [
      counting.count_by_row(
        stacks,
        bounds,
        ties=counting.Ties(jnp.asarray(asked), score, cutoffs),
        skip=skip,
      )
      for asked in (False, True)
    ]
    return counting.count(
      table(values), partition, bounds, partitioning=partitioning
    ), *counts

  every, above, tied = run(values, bounds, score, cutoffs, skip)
  wanted = [
    [int((row > t).sum()) for t in ts]
    for row, ts in zip(rows, bounds, strict=True)
  ]
  assert every.tolist() == wanted
  assert above.tolist() == np.where(skip[:, None], 0, wanted).tolist()
  wanted = [
    [int((row.reshape(-1)[:c] == s).sum()) for c in cs] + [0]
    for row, s, cs in zip(rows, score, cutoffs, strict=True)
  ]
  assert tied.tolist() == np.where(skip[:, None], 0, wanted).tolist()
