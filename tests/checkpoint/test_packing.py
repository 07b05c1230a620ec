"""Packing a sharded subset and unpacking it again, on several meshes.

The subset is drawn in NumPy, and NumPy says what must come out.
"""

import logging
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dst_t5x.checkpoint import extraction, packing, unpacking
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
  'layers apart': (
    (2, 3),
    {
      'encoder/layers/mlp/wi': P('data', 'model'),
      'encoder/layers/mlp/wo': P(None, ('model',)),
      'embedder/embedding': P('data'),
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
  new = {path: np.where(masks[path], -x, x) for path, x in old.items()}
  return partition, budgets, old, new, masks


def layer_of(x, part) -> Any:
  return np.take(x, part.layer, part.axis)


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
  partition, budgets, old, new, _ = drawn(0, fraction, dtype)
  partitioning = partitioning_of(mesh)

  packed = packing.pack(
    partition,
    budgets,
    partitioning,
    put(new, partitioning),
    put(old, partitioning),
  )
  for k, silo in zip(budgets, packed, strict=True):
    assert silo.positions.shape == silo.values.shape == (k,)
    assert silo.counts.sum() == k
  result = unpacking.unpack(
    partition, partitioning, packed, put(old, partitioning)
  )
  for path, x in new.items():
    np.testing.assert_array_equal(np.asarray(result[path]), x, path)
    expected = NamedSharding(partitioning.mesh, partitioning.specs[path])
    assert result[path].sharding.is_equivalent_to(expected, x.ndim)


def test_same_arrays_on_every_mesh():
  partition, budgets, old, new, _ = drawn(1, 0.1)
  found = []
  for mesh in MESHES:
    partitioning = partitioning_of(mesh)
    found.append(
      packing.pack(
        partition,
        budgets,
        partitioning,
        put(new, partitioning),
        put(old, partitioning),
      )
    )
  for other in found[1:]:
    jax.tree.map(np.testing.assert_array_equal, found[0], other)


def test_positions_are_flat_within_their_part():
  partition, budgets, old, new, masks = drawn(2, 0.1)
  partitioning = partitioning_of('data and model')
  packed = packing.pack(
    partition,
    budgets,
    partitioning,
    put(new, partitioning),
    put(old, partitioning),
  )
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
  packed = packing.pack_masks(
    partition, budgets, partitioning, put(masks, partitioning)
  )
  result = unpacking.unpack_masks(partition, partitioning, packed, old)
  for path, mask in masks.items():
    np.testing.assert_array_equal(np.asarray(result[path]), mask, path)
    expected = NamedSharding(partitioning.mesh, partitioning.specs[path])
    assert result[path].sharding.is_equivalent_to(expected, mask.ndim)


def test_bits_are_compared():
  partition = silos.assign({'w': (2, 3)})
  partitioning = Partitioning(partitioning_of('one').mesh, {'w': P()})
  old = np.float32([[0.0, np.nan, 1.0], [2.0, 3.0, 4.0]])
  new = np.float32([[-0.0, np.nan, 1.0], [2.0, 3.0, np.nan]])
  (silo,) = packing.pack(
    partition, (3,), partitioning, {'w': jnp.array(new)}, {'w': jnp.array(old)}
  )
  assert silo.positions.tolist() == [0, 5, 0]
  assert silo.counts.tolist() == [2]
  assert silo.values[0] == 0 and np.signbit(silo.values[0])
  assert np.isnan(silo.values[1])


def test_more_than_the_budget_shows_in_the_counts():
  partition, budgets, old, new, _ = drawn(4, 0.1)
  partitioning = partitioning_of('one')
  new['embedder/embedding'] = -old['embedder/embedding']
  packed = packing.pack(
    partition,
    budgets,
    partitioning,
    put(new, partitioning),
    put(old, partitioning),
  )
  number = partition.names.index('embedder')
  assert packed[number].counts.sum() == 256 > budgets[number]


def test_shapes_are_what_pack_returns():
  partition, budgets, old, new, _ = drawn(5, 0.1)
  partitioning = partitioning_of('one')
  packed = packing.pack(
    partition,
    budgets,
    partitioning,
    put(new, partitioning),
    put(old, partitioning),
  )
  dtypes = {path: x.dtype for path, x in new.items()}
  told = packing.shapes(partition, budgets, dtypes, values=True)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), packed) == jax.tree.map(
    lambda x: (x.shape, x.dtype), told
  )


def collectives(program, *arguments):
  text = program.lower(*arguments).compile().as_text()
  return sorted(re.findall(r' (all-[a-z]+|collective-[a-z]+)\(', text))


def test_few_collectives():
  partitioning = partitioning_of('data and model')
  path = 'encoder/layers/mlp/wi'
  place = extraction.TensorPlace(
    partitioning.mesh, partitioning.specs[path], STACKS[path]
  )
  x = put({path: np.zeros(SHAPES[path], np.float32)}, partitioning)[path]
  assert collectives(extraction._counter(place), x, x) == ['all-reduce']
  found = collectives(extraction._finder(place, 16), np.int32(0), x, x)
  # On the CPU, positions and values are reduced one after the other.
  assert found in (
    ['all-gather', 'all-reduce'],
    ['all-gather', 'all-reduce', 'all-reduce'],
  )


def test_more_layers_compile_nothing_more(caplog):
  mesh = partitioning_of('data and model').mesh

  def there_and_back(layers):
    kinds = {'mlp/wi': (12, 16), 'mlp/wo': (16, 12), 'norm/scale': (12,)}
    shapes = {
      f'encoder/layers_{i}/{kind}': shape
      for i in range(layers)
      for kind, shape in kinds.items()
    }
    partition = silos.assign(shapes)
    partitioning = Partitioning(
      mesh,
      {p: P(None, 'model') if 'wi' in p else P() for p in shapes},
    )
    old = {path: np.ones(shape, 'f4') for path, shape in shapes.items()}
    old, new = put(old, partitioning), put(old, partitioning)
    path = f'encoder/layers_{layers - 1}/mlp/wi'
    new[path] = put({path: -np.ones((12, 16), 'f4')}, partitioning)[path]
    budgets = tuple(partition.sizes)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
      caplog.clear()
      packed = packing.pack(partition, budgets, partitioning, new, old)
      result = unpacking.unpack(partition, partitioning, packed, old)
      compiled = [r for r in caplog.messages if 'XLA compilation' in r]
    np.testing.assert_array_equal(result[path], new[path])
    return len(compiled)

  # Counted in three tensors, found in one, put into three.
  assert there_and_back(2) == 7
  assert there_and_back(5) == 0


def test_dtypes_within_a_silo_must_agree():
  partition = silos.assign({'a/w': (4,), 'a/v': (4,)})
  dtypes = {'a/w': jnp.float32, 'a/v': jnp.bfloat16}
  with pytest.raises(NotImplementedError, match='bfloat16, float32'):
    packing.shapes(partition, (1,), dtypes, values=True)
