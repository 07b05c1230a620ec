"""Identical inputs, any mesh: bit-identical thresholds and subsets.

Whole runs differ in the last bits, since gradients are summed in another order.
Here the hook gets the same gradients everywhere, and its inner optimizer works
entry by entry, so that nothing may differ at all.
"""

import subprocess
import sys

import numpy as np
import pytest

from dst_t5x.launch.local import process_lines
from tests.t5x import runs

SCRIPT = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import NamedSharding, PartitionSpec as P

partitions, out = int(sys.argv[1]), sys.argv[2]
if len(sys.argv) > 3:
  address, count, index = sys.argv[3:]
  jax.distributed.initialize(address, int(count), int(index))

from dst_t5x.core import methods
from dst_t5x.core.counting import Partitioning
from dst_t5x.hooks import inner
from dst_t5x.hooks import optimizer
from dst_t5x.checkpoint import packing, unpacking
from dst_t5x.hooks import partitioning
from dst_t5x.arrays.paths import named_leaves

SHAPES = {
  'encoder': {'layers_0': {'mlp': {'wi': (64, 128), 'wo': (128, 64)}},
              'norm': {'scale': (64,)}},
  'token_embedder': {'embedding': (384, 64)},
}
AXES = {
  'encoder': {'layers_0': {'mlp': {'wi': P('embed', 'mlp'),
                                   'wo': P('mlp', 'embed')}},
              'norm': {'scale': P('embed')}},
  'token_embedder': {'embedding': P('vocab', 'embed')},
}
SPECS = {
  'encoder/layers_0/mlp/wi': P(None, 'model'),
  'encoder/layers_0/mlp/wo': P('model', None),
  'encoder/norm/scale': P(None),
  'token_embedder/embedding': P('model', 'data'),
}
mesh = partitioning.cpu_mesh(partitions)
shape = lambda x: isinstance(x, tuple)
places = jax.tree.unflatten(
  jax.tree.structure(SHAPES, is_leaf=shape),
  [NamedSharding(mesh, spec) for spec in SPECS.values()])

def drawn(seed):
  rng = np.random.default_rng(seed)
  host = jax.tree.map(
    lambda s: rng.normal(size=s).astype(np.float32), SHAPES, is_leaf=shape)
  return jax.tree.map(
    lambda x, s: jax.make_array_from_callback(x.shape, s, lambda i: x[i]),
    host, places)

definition = optimizer.Selective(
  inner.Optax(lambda learning_rate: optax.adam(learning_rate)),
  methods.dst(), epsilon=0.01)
definition.set_param_axes(AXES)
partitioning = Partitioning(mesh, SPECS)
definition.set_partitioning(partitioning)
params = drawn(0)
plan = definition.plan(params)
state = jax.jit(definition.create)(params)
step = jax.jit(lambda o, g: o.apply_gradient(g, learning_rate=0.03))
found = {}
for number in range(1, 11):
  state = step(state, drawn(number))
  kept = state.state.param_states['selective']
  found[f'threshold_{number}'] = np.asarray(kept.metrics.threshold)
  found[f'carry_{number}'] = np.asarray(kept.carry)
now, seed = named_leaves(state.target), kept.seed
packed = packing.pack(plan.silos, plan.budgets, partitioning, now, seed)
again = unpacking.unpack(plan.silos, partitioning, packed, seed)
same = jax.jit(
  lambda a, b: jnp.all(jnp.stack([jnp.all(a[p] == b[p]) for p in a])),
  out_shardings=NamedSharding(mesh, P()))
assert bool(same(again, now))
for name, silo in zip(plan.silos.names, packed):
  for kind in ('positions', 'values', 'counts'):
    found[f'{name}_{kind}'.replace('/', '.')] = np.asarray(getattr(silo, kind))
if jax.process_index() == 0:
  np.savez(out, **found)
"""


def start(tmp_path, name, devices, *arguments):
  script = tmp_path / 'steps.py'
  script.write_text(SCRIPT)
  line = [sys.executable, str(script), *map(str, arguments)]
  with (tmp_path / f'{name}.log').open('w') as log:
    return subprocess.Popen(
      line,
      env=runs.environment(devices),
      stdout=log,
      stderr=subprocess.STDOUT,
    )


@pytest.fixture(scope='module')
def found(tmp_path_factory):
  tmp_path = tmp_path_factory.mktemp('meshes')
  address = f'127.0.0.1:{process_lines.free_port()}'
  started = [
    start(tmp_path, 'one', 1, 1, tmp_path / 'one.npz'),
    start(tmp_path, 'eight', 8, 4, tmp_path / 'eight.npz'),
    start(tmp_path, 'two_0', 4, 4, tmp_path / 'two.npz', address, 2, 0),
    start(tmp_path, 'two_1', 4, 4, tmp_path / 'unused.npz', address, 2, 1),
  ]
  for process in started:
    assert process.wait(600) == 0, (tmp_path / 'one.log').read_text()
  return {
    name: dict(np.load(tmp_path / f'{name}.npz'))
    for name in ('one', 'eight', 'two')
  }


@pytest.mark.parametrize('mesh', ['eight', 'two'])
def test_bit_identical(found, mesh):
  one, other = found['one'], found[mesh]
  assert one.keys() == other.keys()
  assert one['token_embedder_positions'].size == 245  # ε n by remainder
  assert len({one[f'threshold_{i}'].tobytes() for i in range(1, 11)}) == 10
  for name, x in one.items():
    assert x.tobytes() == other[name].tobytes(), name
