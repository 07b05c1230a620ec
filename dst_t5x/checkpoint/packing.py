"""A sharded subset as a few small replicated arrays; `unpacking` goes back.

What a checkpoint keeps of a silo are the positions and the values of the
parameters in its subset, k of each at most. The parameters stay where they are:
every device looks through its own shards, and two small collectives put the
positions together, one for how many there are and one for what they are.

A silo consists of *parts*: tensors, or slices of a stack. Positions are flat,
row-major and within one part; `counts` says how many belong to each part, so
that four bytes a position are enough whatever the silo's size.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Int32

from dst_t5x.arrays import flat_access, mesh_index
from dst_t5x.checkpoint import shards
from dst_t5x.checkpoint.shards import SiloPart
from dst_t5x.core.counting import Partitioning
from dst_t5x.core.silos import Silos

_PLAIN = PartitionSpec()


class Packed(NamedTuple):
  """The subset of one silo.

  Attributes:
    positions: int32[k], sorted within each part; 0 in unused places.
    values: [k] in the parameters' dtype; 0 in unused places. () if only the
      positions are kept.
    counts: int32[parts], how many places each part uses (count).
  """

  positions: Any
  values: Any
  counts: Any


def silo_parts(silos: Silos) -> tuple[tuple[SiloPart, ...], ...]:
  """Returns the parts of every silo, in the order of the parameters.

  Args:
    silos: the partition.

  Returns:
    One tuple a silo.

  Example:
    >>> from dst_t5x.core.silos import assign
    >>> silo_parts(assign({'a/w': (2, 3)}, scheme='none'))
    ((SiloPart(path='a/w', layer=None, axis=None),),)
  """
  parts: list[list[SiloPart]] = [[] for _ in silos.names]
  for path, placement in silos.placements.items():
    for index, silo in enumerate(placement.silos):
      layer = None if placement.axis is None else index
      parts[silo].append(SiloPart(path, layer, placement.axis))
  return tuple(tuple(each) for each in parts)


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
      jax.ShapeDtypeStruct((k,), _dtype(parts, dtypes)) if values else (),
      jax.ShapeDtypeStruct((len(parts),), jnp.int32),
    )
    for k, parts in zip(budgets, silo_parts(silos), strict=True)
  )


def pack(
  silos: Silos,
  budgets: tuple[int, ...],
  partitioning: Partitioning,
  masks: Mapping[str, jax.Array],
  params: Mapping[str, jax.Array] | None = None,
) -> tuple[Packed, ...]:
  """Returns where the masks are True, and the parameters there.

  Where more than k of a silo are True, the counts say so: their sum exceeds k,
  and the arrays hold the first k. Callers must check it.

  Args:
    silos: the partition.
    budgets: k of every silo (count).
    partitioning: of masks and parameters.
    masks: bool, by path.
    params: by path; None for positions alone.

  Returns:
    One `Packed` a silo, the same on every device and on every mesh.
  """
  parts = silo_parts(silos)
  # Where each silo's parts are among those of all silos, one after another.
  ends = [0, *itertools.accumulate(len(each) for each in parts)]
  ranges = [slice(*pair) for pair in itertools.pairwise(ends)]

  def local(masks: Any, params: Any) -> tuple[Packed, ...]:
    hits = [
      [_hits(part, partitioning, masks, params, k) for part in each]
      for k, each in zip(budgets, parts, strict=True)
    ]
    counts, ahead = _totals(
      partitioning.mesh, jnp.stack([h.number for each in hits for h in each])
    )
    buffers = [
      _buffers(k, each, counts[own], ahead[own])
      for k, each, own in zip(budgets, hits, ranges, strict=True)
    ]
    buffers = jax.lax.psum(buffers, partitioning.mesh.axis_names)
    packed = []
    for each, own, buffer in zip(parts, ranges, buffers, strict=True):
      positions, bits = buffer
      dtype = None if params is None else params[each[0].path].dtype
      packed.append(_sorted(positions, bits, counts[own], dtype))
    return tuple(packed)

  specs = {path: partitioning.specs[path] for path in masks}
  return jax.shard_map(
    local,
    mesh=partitioning.mesh,
    in_specs=(specs, None if params is None else specs),
    out_specs=_PLAIN,
    check_vma=False,
  )(dict(masks), None if params is None else dict(params))


class _Hits(NamedTuple):
  """Where the mask is True in a device's shard of a silo part.

  Attributes:
    positions: int32[at most k], in the whole part.
    bits: of the values there; () if only positions are kept.
    number: int32[], how many there are; more than fit if k is exceeded.
  """

  positions: Array
  bits: Any
  number: Array


def _totals(mesh: Mesh, counts: Array) -> tuple[Array, Array]:
  """Returns two counts of every silo part: in all, and of devices before this.

  Knowing the counts of all devices, each knows the places of its own hits.
  """
  everyone = jax.lax.all_gather(counts, mesh.axis_names)
  everyone = everyone.reshape(mesh.size, counts.shape[0])
  device = mesh_index.linear_index(mesh, mesh.axis_names)
  earlier = jnp.arange(mesh.size)[:, None] < device
  return (
    jnp.sum(everyone, axis=0, dtype=jnp.int32),
    jnp.sum(jnp.where(earlier, everyone, 0), axis=0, dtype=jnp.int32),
  )


def _buffers(
  k: int, hits: Sequence[_Hits], counts: Array, ahead: Array
) -> tuple[Array, Any]:
  """Returns a silo's positions and bits, 0 where other devices have theirs."""
  starts = jnp.cumsum(counts) - counts + ahead
  positions = jnp.zeros(k, jnp.int32)
  bits: Any = ()
  for number, hit in enumerate(hits):
    place = jnp.arange(hit.positions.shape[0], dtype=jnp.int32)
    place = jnp.where(place < hit.number, starts[number] + place, k)
    positions = positions.at[place].set(hit.positions, mode='drop')
    if not isinstance(hit.bits, tuple):
      bits = jnp.zeros(k, hit.bits.dtype) if isinstance(bits, tuple) else bits
      bits = bits.at[place].set(hit.bits, mode='drop')
  return positions, bits


def _hits(
  part: SiloPart,
  partitioning: Partitioning,
  masks: Mapping[str, Array],
  params: Mapping[str, Array] | None,
  k: int,
) -> _Hits:
  """Looks through this device's shard of a silo part.

  Of devices with the same shard only the first reports.
  """
  mask = shards.slice_of(masks[part.path], part)
  spec = shards.slice_spec(
    partitioning.specs[part.path], masks[part.path].ndim, part
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
    return _Hits(position, (), count)
  values = shards.slice_of(params[part.path], part).reshape(-1)[here]
  return _Hits(position, flat_access.as_bits(values), count)


def _sorted(positions: Array, bits: Any, counts: Array, dtype: Any) -> Packed:
  """Sorts what all devices reported: the order must not depend on the mesh."""
  owners = owner(counts, positions.shape[0])
  if isinstance(bits, tuple):
    _, positions = jax.lax.sort((owners, positions), num_keys=2)
    return Packed(positions, (), counts)
  _, positions, bits = jax.lax.sort((owners, positions, bits), num_keys=2)
  return Packed(positions, jax.lax.bitcast_convert_type(bits, dtype), counts)


def _dtype(parts: tuple[SiloPart, ...], dtypes: Mapping[str, Any]) -> Any:
  """Returns the dtype of a silo, which all of its parts must have."""
  different = {jnp.dtype(dtypes[part.path]) for part in parts}
  if len(different) != 1:
    names = ', '.join(sorted(d.name for d in different))
    raise NotImplementedError(
      f'parameters of one silo have different dtypes ({names}), among them '
      f'{parts[0].path!r}: give them silos of their own'
    )
  return different.pop()


def owner(counts: Array, k: int) -> Int32[Array, ' k']:
  """Returns the number of the silo part that each place belongs to.

  Args:
    counts: of the silo's parts.
    k: places (count).

  Returns:
    Numbers of parts; one more than the last for places that are not used.
  """
  ends = jnp.cumsum(counts)
  return jnp.searchsorted(ends, jnp.arange(k), side='right').astype(jnp.int32)
