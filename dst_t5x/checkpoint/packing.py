"""A sharded subset as a few small replicated arrays; `unpacking` goes back.

What a checkpoint keeps of a silo are the positions and the values of the
parameters in its subset, k of each at most. The parameters stay where they are:
every device looks through its own shards, and two small collectives put the
finds together, one for how many there are and one for what they are.

A silo's parameters are its *entries*: tensors, or slices of a stack. Positions
are flat, row-major and within one entry; `counts` says how many belong to each,
so that four bytes are enough whatever the silo's size.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Int32

from dst_t5x.arrays import bit_types, mesh_index
from dst_t5x.checkpoint import shards
from dst_t5x.checkpoint.shards import Entry
from dst_t5x.core.counting import Partitioning
from dst_t5x.core.silos import Silos

_PLAIN = PartitionSpec()


class Packed(NamedTuple):
  """The subset of one silo.

  Attributes:
    positions: int32[k], sorted within each entry; 0 in unused places.
    values: [k] in the parameters' dtype; 0 in unused places. () if only the
      positions are kept.
    counts: int32[entries], how many places each entry uses (count).
  """

  positions: Any
  values: Any
  counts: Any


def entries(silos: Silos) -> tuple[tuple[Entry, ...], ...]:
  """Returns the entries of every silo, in the order of the parameters.

  Args:
    silos: the partition.

  Returns:
    One tuple a silo.

  Example:
    >>> from dst_t5x.core.silos import assign
    >>> entries(assign({'a/w': (2, 3)}, scheme='none'))
    ((Entry(path='a/w', layer=None, axis=None),),)
  """
  found: list[list[Entry]] = [[] for _ in silos.names]
  for path, placement in silos.placements.items():
    for index, silo in enumerate(placement.silos):
      sliced = placement.axis is not None
      found[silo].append(Entry(path, index if sliced else None, placement.axis))
  return tuple(tuple(each) for each in found)


def shapes(
  silos: Silos,
  budgets: tuple[int, ...],
  dtypes: Mapping[str, Any],
  *,
  values: bool,
) -> tuple[Packed, ...]:
  """Returns what `pack` returns, as shapes.

  Args:
    silos: the partition.
    budgets: k of every silo (count).
    dtypes: of every parameter, by path.
    values: False for positions alone.

  Returns:
    One `Packed` of `jax.ShapeDtypeStruct` a silo.
  """
  return tuple(
    Packed(
      jax.ShapeDtypeStruct((k,), jnp.int32),
      jax.ShapeDtypeStruct((k,), _dtype(inside, dtypes)) if values else (),
      jax.ShapeDtypeStruct((len(inside),), jnp.int32),
    )
    for k, inside in zip(budgets, entries(silos), strict=True)
  )


def pack(
  silos: Silos,
  budgets: tuple[int, ...],
  partitioning: Partitioning,
  masks: Mapping[str, jax.Array],
  params: Mapping[str, jax.Array] | None = None,
) -> tuple[Packed, ...]:
  """Returns where the masks are True, and the parameters there.

  A silo in which more than k are True comes back with counts whose sum exceeds
  k; the arrays then hold the first k. Callers must look.

  Args:
    silos: the partition.
    budgets: k of every silo (count).
    partitioning: of masks and parameters.
    masks: bool, by path.
    params: by path; None for positions alone.

  Returns:
    One `Packed` a silo, the same on every device and on every mesh.
  """
  silo_entries = entries(silos)

  def local(masks: Any, params: Any) -> tuple[Packed, ...]:
    finds = [
      [_find(entry, partitioning, masks, params, k) for entry in inside]
      for k, inside in zip(budgets, silo_entries, strict=True)
    ]
    counts, starts = _places(
      partitioning.mesh, jnp.stack([f.found for each in finds for f in each])
    )
    buffers = []
    first = 0
    for k, each in zip(budgets, finds, strict=True):
      own = slice(first, first + len(each))
      buffers.append(_placed(k, each, counts[own], starts[own]))
      first += len(each)
    buffers = jax.lax.psum(buffers, partitioning.mesh.axis_names)
    packed, first = [], 0
    for inside, (positions, bits) in zip(silo_entries, buffers, strict=True):
      own = slice(first, first + len(inside))
      dtype = None if params is None else params[inside[0].path].dtype
      packed.append(_sorted(positions, bits, counts[own], dtype))
      first += len(inside)
    return tuple(packed)

  specs = {path: partitioning.specs[path] for path in masks}
  return jax.shard_map(
    local,
    mesh=partitioning.mesh,
    in_specs=(specs, None if params is None else specs),
    out_specs=_PLAIN,
    check_vma=False,
  )(dict(masks), None if params is None else dict(params))


class _Found(NamedTuple):
  """What a device's shard of an entry holds.

  Attributes:
    positions: int32[at most k], in the whole entry.
    bits: of the values there; () if only positions are kept.
    found: int32[], how many of them there are; more than fit if k is exceeded.
  """

  positions: Array
  bits: Any
  found: Array


def _places(mesh: Mesh, mine: Array) -> tuple[Array, Array]:
  """Returns how many each entry has, and how many other devices put before.

  Knowing everybody's counts, each device knows the places of its own finds.
  """
  everyone = jax.lax.all_gather(mine, mesh.axis_names)
  everyone = everyone.reshape(mesh.size, mine.shape[0])
  me = mesh_index.linear_index(mesh, mesh.axis_names)
  earlier = jnp.arange(mesh.size)[:, None] < me
  return (
    jnp.sum(everyone, axis=0, dtype=jnp.int32),
    jnp.sum(jnp.where(earlier, everyone, 0), axis=0, dtype=jnp.int32),
  )


def _placed(
  k: int, finds: Sequence[_Found], counts: Array, ahead: Array
) -> tuple[Array, Any]:
  """Returns a silo's positions and bits, 0 where other devices have theirs."""
  starts = jnp.cumsum(counts) - counts + ahead
  positions = jnp.zeros(k, jnp.int32)
  bits: Any = ()
  for number, found in enumerate(finds):
    place = jnp.arange(found.positions.shape[0], dtype=jnp.int32)
    place = jnp.where(place < found.found, starts[number] + place, k)
    positions = positions.at[place].set(found.positions, mode='drop')
    if not isinstance(found.bits, tuple):
      bits = jnp.zeros(k, found.bits.dtype) if isinstance(bits, tuple) else bits
      bits = bits.at[place].set(found.bits, mode='drop')
  return positions, bits


def _find(
  entry: Entry,
  partitioning: Partitioning,
  masks: Mapping[str, Array],
  params: Mapping[str, Array] | None,
  k: int,
) -> _Found:
  """Looks through this device's shard of an entry.

  Of devices with the same shard only the first reports.
  """
  mask = shards.slice_of(masks[entry.path], entry)
  spec = shards.slice_spec(
    partitioning.specs[entry.path], masks[entry.path].ndim, entry
  )
  flat = mask.reshape(-1)
  size = min(k, flat.size)
  is_first = shards.copy_index(partitioning.mesh, spec) == 0
  count = jnp.sum(flat, dtype=jnp.int32) * is_first.astype(jnp.int32)
  (here,) = jnp.nonzero(flat, size=size, fill_value=0)
  coordinates = jnp.unravel_index(here, mask.shape)
  position = jnp.zeros(size, jnp.int32)
  for d, coordinate in enumerate(coordinates):
    start, whole = shards.extent(partitioning.mesh, spec, d, mask.shape[d])
    position = position * whole + coordinate.astype(jnp.int32) + start
  if params is None:
    return _Found(position, (), count)
  value = shards.slice_of(params[entry.path], entry).reshape(-1)[here]
  bits = jax.lax.bitcast_convert_type(value, bit_types.unsigned(value.dtype))
  return _Found(position, bits, count)


def _sorted(positions: Array, bits: Any, counts: Array, dtype: Any) -> Packed:
  """Orders what the devices found; the order must not depend on the mesh."""
  owners = owner(counts, positions.shape[0])
  if isinstance(bits, tuple):
    _, positions = jax.lax.sort((owners, positions), num_keys=2)
    return Packed(positions, (), counts)
  _, positions, bits = jax.lax.sort((owners, positions, bits), num_keys=2)
  return Packed(positions, jax.lax.bitcast_convert_type(bits, dtype), counts)


def _dtype(inside: tuple[Entry, ...], dtypes: Mapping[str, Any]) -> Any:
  found = {jnp.dtype(dtypes[entry.path]) for entry in inside}
  if len(found) != 1:
    names = ', '.join(sorted(d.name for d in found))
    raise NotImplementedError(
      f'parameters of one silo have different dtypes ({names}), among them '
      f'{inside[0].path!r}: give them silos of their own'
    )
  return found.pop()


def owner(counts: Array, k: int) -> Int32[Array, ' k']:
  """Returns the entry that each place belongs to; past the last if unused."""
  ends = jnp.cumsum(counts)
  return jnp.searchsorted(ends, jnp.arange(k), side='right').astype(jnp.int32)
