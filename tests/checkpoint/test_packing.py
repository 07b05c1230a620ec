"""Packing a sharded subset and unpacking it again, on several meshes.

The subset is drawn in NumPy, and NumPy says what must come out.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dst_t5x.checkpoint import packing, unpacking
from dst_t5x.core import silos
from dst_t5x.core.budgets import allocate
from dst_t5x.core.counting import Partitioning

SHAPES = {
  'decoder/norm/scale': (8,),
  'decoder/scalar': (),
  'embedder/embedding': (32, 8),
  'encoder/layers/mlp/wi': (8, 3, 16),
  'encoder/layers/mlp/wo': (8, 3),
}
STACKS = {'encoder/layers/mlp/wi': 1, 'encoder/layers/mlp/wo': 1}
MESHES = {
  'one': ((1, 1), {}),
  'data and model': (
    (2, 4),
    {
      'encoder/layers/mlp/wi': P('data', None, 'model'),
      'embedder/embedding': P(('data', 'model')),
    },
  ),
  'model twice': (
    (4, 2),
    {
      'encoder/layers/mlp/wi': P(None, None, 'model'),
      'embedder/embedding': P('model', 'data'),
      'decoder/norm/scale': P('data'),
    },
  ),
}


def partitioning_of(name):
  shape, specs = MESHES[name]
  devices = np.array(jax.devices()[: shape[0] * shape[1]]).reshape(shape)
  mesh = Mesh(devices, ('data', 'model'))
  return Partitioning(mesh, {path: specs.get(path, P()) for path in SHAPES})


def drawn(seed, fraction, dtype=np.float32):
  """Parameters, a subset that fills every budget, and the changed ones."""
  rng = np.random.default_rng(seed)
  partition = silos.assign(SHAPES, stack_axes=STACKS)
  budgets = allocate(partition.sizes, epsilon=fraction)
  old = {p: rng.normal(size=s).astype(dtype) for p, s in SHAPES.items()}
  masks = {path: np.zeros(shape, bool) for path, shape in SHAPES.items()}
  for k, parts in zip(budgets, packing.silo_parts(partition), strict=True):
    places = []
    for part in parts:
      index = np.arange(masks[part.path].size).reshape(SHAPES[part.path])
      if part.axis is not None:
        index = layer_of(index, part)
      places += [(part.path, flat) for flat in index.reshape(-1)]
    for at in rng.permutation(len(places))[:k]:
      path, flat = places[at]
      masks[path].reshape(-1)[flat] = True
  new = {
    p: np.where(masks[p], rng.normal(size=SHAPES[p]).astype(dtype), x)
    for p, x in old.items()
  }
  return partition, budgets, old, new, masks


def layer_of(x, part) -> Any:
  return np.take(x, part.layer, part.axis)


def pack(partition, budgets, partitioning, masks, params=None):
  """Compiled, which one call is quicker with, too."""
  run = jax.jit(
    lambda m, x: packing.pack(partition, budgets, partitioning, m, x)
  )
  return run(masks, params)


def put(tree, partitioning):
  return {
    path: jax.device_put(
      x, NamedSharding(partitioning.mesh, partitioning.specs[path])
    )
    for path, x in tree.items()
  }


@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16])
@pytest.mark.parametrize('fraction', [0.02, 0.3, 1.0])
@pytest.mark.parametrize('mesh', MESHES)
def test_round_trip(mesh, fraction, dtype):
  partition, budgets, old, new, masks = drawn(0, fraction, dtype)
  partitioning = partitioning_of(mesh)

  packed = pack(
    partition,
    budgets,
    partitioning,
    put(masks, partitioning),
    put(new, partitioning),
  )
  for k, silo in zip(budgets, packed, strict=True):
    assert silo.positions.shape == silo.values.shape == (k,)
    assert silo.counts.sum() == k
  result = jax.jit(
    lambda packed, base: unpacking.unpack(partition, partitioning, packed, base)
  )(packed, put(old, partitioning))
  for path, x in new.items():
    np.testing.assert_array_equal(np.asarray(result[path]), x, path)
    expected = NamedSharding(partitioning.mesh, partitioning.specs[path])
    assert result[path].sharding.is_equivalent_to(expected, x.ndim)


def test_same_arrays_on_every_mesh():
  partition, budgets, _, new, masks = drawn(1, 0.1)
  found = []
  for mesh in MESHES:
    partitioning = partitioning_of(mesh)
    packed = pack(
      partition,
      budgets,
      partitioning,
      put(masks, partitioning),
      put(new, partitioning),
    )
    found.append(jax.tree.map(np.asarray, packed))
  for other in found[1:]:
    jax.tree.map(np.testing.assert_array_equal, found[0], other)


def test_positions_are_flat_within_their_part():
  partition, budgets, _, new, masks = drawn(2, 0.1)
  partitioning = partitioning_of('data and model')
  packed = jax.jit(
    lambda m, x: packing.pack(partition, budgets, partitioning, m, x)
  )(put(masks, partitioning), put(new, partitioning))
  for parts, silo in zip(packing.silo_parts(partition), packed, strict=True):
    start = 0
    for part, count in zip(parts, silo.counts, strict=True):
      mask, values = masks[part.path], new[part.path]
      if part.axis is not None:
        mask = layer_of(mask, part)
        values = layer_of(values, part)
      at = np.flatnonzero(mask)
      own = slice(start, start + int(count))
      np.testing.assert_array_equal(silo.positions[own], at)
      np.testing.assert_array_equal(silo.values[own], values.reshape(-1)[at])
      start += int(count)


def test_masks_alone():
  partition, budgets, old, _, masks = drawn(3, 0.2)
  partitioning = partitioning_of('model twice')
  packed = pack(partition, budgets, partitioning, put(masks, partitioning))
  none = put({p: np.zeros(x.shape, bool) for p, x in old.items()}, partitioning)
  result = jax.jit(
    lambda packed, base: unpacking.unpack(partition, partitioning, packed, base)
  )(packed, none)
  for path, mask in masks.items():
    np.testing.assert_array_equal(np.asarray(result[path]), mask, path)


def test_more_than_the_budget_shows_in_the_counts():
  partition, budgets, _, new, masks = drawn(4, 0.1)
  partitioning = partitioning_of('one')
  masks['embedder/embedding'][:] = True
  packed = pack(partition, budgets, partitioning, masks, new)
  number = partition.names.index('embedder')
  assert packed[number].counts.sum() == 256 > budgets[number]


def test_shapes_are_what_pack_returns():
  partition, budgets, _, new, masks = drawn(5, 0.1)
  partitioning = partitioning_of('one')
  packed = pack(partition, budgets, partitioning, masks, new)
  dtypes = {path: x.dtype for path, x in new.items()}
  told = packing.shapes(partition, budgets, dtypes, values=True)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), packed) == jax.tree.map(
    lambda x: (x.shape, x.dtype), told
  )


def test_two_collectives_in_all():
  partition, budgets, _, new, masks = drawn(6, 0.1)
  partitioning = partitioning_of('data and model')
  text = (
    jax.jit(lambda m, x: packing.pack(partition, budgets, partitioning, m, x))
    .lower(put(masks, partitioning), put(new, partitioning))
    .compile()
    .as_text()
  )
  assert text is not None
  found = re.findall(r' (all-reduce|all-gather|all-to-all)\(', text)
  # On the CPU, positions and values are reduced one after the other.
  assert sorted(found) in (
    ['all-gather', 'all-reduce'],
    ['all-gather', 'all-reduce', 'all-reduce'],
  )


def test_dtypes_within_a_silo_must_agree():
  partition = silos.assign({'a/w': (4,), 'a/v': (4,)})
  dtypes = {'a/w': jnp.float32, 'a/v': jnp.bfloat16}
  with pytest.raises(NotImplementedError, match='bfloat16, float32'):
    packing.shapes(partition, (1,), dtypes, values=True)
