"""Small arrays of a subset, put into sharded parameters.

As in `extraction`, a program is compiled once for all tensors of the same
shape, dtype and partition. No device needs another one for it.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array

from dst_t5x.arrays import flat_access, mesh_index
from dst_t5x.checkpoint import extraction, shards
from dst_t5x.checkpoint.extraction import TensorPlace
from dst_t5x.checkpoint.packing import Packed, silo_parts
from dst_t5x.core.counting import Partitioning
from dst_t5x.core.silos import Silos


class _Entries(NamedTuple):
  """What is put into one tensor.

  Attributes:
    layers: int32[n], slices along the stack's axis; 0 for a whole tensor.
    positions: int32[n], within the slice.
    values: [n] in the parameters' dtype; bool[n] for a mask.
  """

  layers: np.ndarray
  positions: np.ndarray
  values: np.ndarray


def unpack(
  silos: Silos,
  partitioning: Partitioning,
  packed: Sequence[Packed],
  base: Mapping[str, jax.Array],
  *,
  dtypes: Mapping[str, Any] | None = None,
) -> dict[str, jax.Array]:
  """Returns the parameters with the packed values at their positions.

  Args:
    silos: the partition.
    partitioning: of the parameters.
    packed: from `packing.pack`, or as it was restored.
    base: parameters by path.
    dtypes: of the values and the result, by path; None for the parameters' own.

  Returns:
    New arrays, partitioned as `base`.
  """
  dtypes = dtypes or {path: x.dtype for path, x in base.items()}
  entries = _by_tensor(silos, packed, dtypes)
  return {
    path: _put(_place(silos, partitioning, path), entries.pop(path), x)
    for path, x in base.items()
  }


def unpack_masks(
  silos: Silos,
  partitioning: Partitioning,
  packed: Sequence[Packed],
  params: Mapping[str, Any],
) -> dict[str, jax.Array]:
  """Returns masks that are True at the packed positions.

  Args:
    silos: the partition.
    partitioning: of the parameters.
    packed: from `packing.pack_masks`, or as it was restored.
    params: arrays or shapes of the parameters, by path.

  Returns:
    bool arrays, partitioned as the parameters are.
  """
  entries = _by_tensor(silos, packed, dict.fromkeys(params, jnp.bool_))
  return {
    path: _put(
      _place(silos, partitioning, path),
      entries.pop(path),
      _nowhere(_place(silos, partitioning, path), tuple(x.shape))(),
    )
    for path, x in params.items()
  }


def _place(silos: Silos, partitioning: Partitioning, path: str) -> TensorPlace:
  return TensorPlace(
    partitioning.mesh,
    partitioning.specs[path],
    silos.placements[path].axis,
  )


def _by_tensor(
  silos: Silos, packed: Sequence[Packed], dtypes: Mapping[str, Any]
) -> dict[str, _Entries]:
  """Returns what belongs to every tensor, of all of its silos together."""
  entries: dict[str, list[_Entries]] = {path: [] for path in silos.placements}
  for silo, parts in zip(packed, silo_parts(silos), strict=True):
    positions, counts = np.asarray(silo.positions), np.asarray(silo.counts)
    values = (
      np.ones(positions.shape, np.bool_)
      if isinstance(silo.values, tuple)
      else np.asarray(silo.values)
    )
    end = 0
    for part, number in zip(parts, counts.tolist(), strict=True):
      own = slice(end, end + number)
      end = own.stop
      if number:
        layers = np.full(number, part.layer or 0, np.int32)
        entries[part.path].append(_Entries(layers, positions[own], values[own]))
  return {
    path: _Entries(*map(np.concatenate, zip(*parts, strict=True)))
    if parts
    else _Entries(
      np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, dtypes[path])
    )
    for path, parts in entries.items()
  }


def _put(place: TensorPlace, entries: _Entries, base: jax.Array) -> jax.Array:
  """Returns a tensor with its entries in place."""
  number = entries.positions.shape[0]
  size = extraction.room(number, base.size)
  padded = (
    shards.replicated(place.mesh, np.pad(x, (0, size - number)))
    for x in entries
  )
  return _putter(place)(base, np.int32(number), *padded)


@functools.cache
def _putter(place: TensorPlace) -> Any:
  mesh, _, axis = place

  def local(
    base: Array, number: Array, layers: Array, rest: Array, values: Array
  ) -> Array:
    spec = mesh_index.by_dimension(place.spec, base.ndim)
    here = jnp.arange(rest.shape[0]) < number
    index: list[Any] = [None] * base.ndim
    for d in reversed(range(base.ndim)):
      start, whole = shards.extent(mesh, spec, d, base.shape[d])
      if d == axis:
        at = layers - start
      else:
        at = rest % whole - start
        rest = rest // whole
      here &= (at >= 0) & (at < base.shape[d])
      index[d] = at
    base = base.astype(values.dtype)
    if not index:  # a scalar has one place, or none
      return jnp.where(jnp.any(here), values[jnp.argmax(here)], base)
    # Out of range is dropped; a negative number would count from the end.
    index = [
      jnp.where(here, at, n) for at, n in zip(index, base.shape, strict=True)
    ]
    return flat_access.put(base, tuple(index), values)

  def program(base: jax.Array, *entries: jax.Array) -> jax.Array:
    return jax.shard_map(
      local,
      mesh=mesh,
      in_specs=(place.spec, *(PartitionSpec(),) * len(entries)),
      out_specs=place.spec,
      check_vma=False,
    )(base, *entries)

  return jax.jit(program)


@functools.cache
def _nowhere(place: TensorPlace, shape: tuple[int, ...]) -> Any:
  return jax.jit(
    lambda: jnp.zeros(shape, jnp.bool_),
    out_shardings=NamedSharding(place.mesh, place.spec),
  )
