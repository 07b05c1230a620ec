"""A sharded subset as a few small replicated arrays, and back.

What a checkpoint keeps of a silo are the positions and the values of the
parameters in its subset, k of each at most. The parameters stay where they are:
every device looks through its own shards, and two small collectives put the
finds together, one for how many there are and one for what they are.

A silo's parameters are its *entries*: tensors, or slices of a stack. Positions
are flat, row-major and within one entry; `counts` says how many belong to each,
so that four bytes are enough whatever the silo's size.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Int32

from dst_t5x.counting import Layout
from dst_t5x.silos import Silos

_PLAIN = PartitionSpec()


class Entry(NamedTuple):
  """A tensor, or one slice of a stack, in a silo.

  Attributes:
    path: of the parameter.
    layer: which slice along the stack's axis, or None.
    axis: the stack's axis, or None.
  """

  path: str
  layer: int | None
  axis: int | None


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
    >>> from dst_t5x.silos import assign
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
  layout: Layout,
  masks: Mapping[str, jax.Array],
  params: Mapping[str, jax.Array] | None = None,
) -> tuple[Packed, ...]:
  """Returns where the masks are True, and the parameters there.

  A silo in which more than k are True comes back with counts whose sum exceeds
  k; the arrays then hold the first k. Callers must look.

  Args:
    silos: the partition.
    budgets: k of every silo (count).
    layout: of masks and parameters.
    masks: bool, by path.
    params: by path; None for positions alone.

  Returns:
    One `Packed` a silo, the same on every device and on every mesh.
  """
  silo_entries = entries(silos)

  def local(masks: Any, params: Any) -> tuple[Packed, ...]:
    finds = [
      [_find(entry, layout, masks, params, k) for entry in inside]
      for k, inside in zip(budgets, silo_entries, strict=True)
    ]
    counts, starts = _places(
      layout.mesh, jnp.stack([f.count for each in finds for f in each])
    )
    buffers = []
    first = 0
    for k, each in zip(budgets, finds, strict=True):
      own = slice(first, first + len(each))
      buffers.append(_placed(k, each, counts[own], starts[own]))
      first += len(each)
    buffers = jax.lax.psum(buffers, layout.mesh.axis_names)
    packed, first = [], 0
    for inside, (positions, bits) in zip(silo_entries, buffers, strict=True):
      own = slice(first, first + len(inside))
      dtype = None if params is None else params[inside[0].path].dtype
      packed.append(_sorted(positions, bits, counts[own], dtype))
      first += len(inside)
    return tuple(packed)

  specs = {path: layout.specs[path] for path in masks}
  return jax.shard_map(
    local,
    mesh=layout.mesh,
    in_specs=(specs, None if params is None else specs),
    out_specs=_PLAIN,
    check_vma=False,
  )(dict(masks), None if params is None else dict(params))


def unpack(
  silos: Silos,
  layout: Layout,
  packed: tuple[Packed, ...],
  base: Mapping[str, jax.Array],
) -> dict[str, jax.Array]:
  """Returns the parameters with the packed values at their positions.

  Args:
    silos: the partition.
    layout: of the parameters.
    packed: from `pack`; where it holds no values, True is written.
    base: parameters, or masks, by path.

  Returns:
    A new tree of arrays, sharded as `base`.
  """
  silo_entries = entries(silos)

  def local(packed: tuple[Packed, ...], base: dict[str, Array]) -> Any:
    result = dict(base)
    for one, inside in zip(packed, silo_entries, strict=True):
      if not one.positions.shape[0]:
        continue
      owner = _owner(one.counts, one.positions.shape[0])
      for number, entry in enumerate(inside):
        result[entry.path] = _scatter(
          result[entry.path], entry, layout, one, owner == number
        )
    return result

  specs = {path: layout.specs[path] for path in base}
  return jax.shard_map(
    local,
    mesh=layout.mesh,
    in_specs=(_PLAIN, specs),
    out_specs=specs,
    check_vma=False,
  )(packed, dict(base))


class _Found(NamedTuple):
  """What a device's shard of an entry holds.

  Attributes:
    positions: int32[at most k], in the whole entry.
    bits: of the values there; () if only positions are kept.
    count: int32[], how many of them there are; more than fit if k is exceeded.
  """

  positions: Array
  bits: Any
  count: Array


def _places(mesh: Mesh, mine: Array) -> tuple[Array, Array]:
  """Returns how many each entry has, and how many other devices put before.

  Knowing everybody's counts, each device knows the places of its own finds.
  """
  everyone = jax.lax.all_gather(mine, mesh.axis_names)
  everyone = everyone.reshape(mesh.size, mine.shape[0])
  me = _linear_index(mesh, mesh.axis_names)
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
    place = jnp.where(place < found.count, starts[number] + place, k)
    positions = positions.at[place].set(found.positions, mode='drop')
    if not isinstance(found.bits, tuple):
      bits = jnp.zeros(k, found.bits.dtype) if isinstance(bits, tuple) else bits
      bits = bits.at[place].set(found.bits, mode='drop')
  return positions, bits


def _find(
  entry: Entry,
  layout: Layout,
  masks: Mapping[str, Array],
  params: Mapping[str, Array] | None,
  k: int,
) -> _Found:
  """Looks through this device's shard of an entry.

  Of devices with the same shard only the first reports.
  """
  mask = _slice(masks[entry.path], entry)
  spec = _slice_spec(layout.specs[entry.path], masks[entry.path].ndim, entry)
  flat = mask.reshape(-1)
  size = min(k, flat.size)
  is_first = _copy_index(layout.mesh, spec) == 0
  count = jnp.sum(flat, dtype=jnp.int32) * is_first.astype(jnp.int32)
  (here,) = jnp.nonzero(flat, size=size, fill_value=0)
  coordinates = jnp.unravel_index(here, mask.shape)
  position = jnp.zeros(size, jnp.int32)
  for d, coordinate in enumerate(coordinates):
    start, whole = _extent(layout.mesh, spec, d, mask.shape[d])
    position = position * whole + coordinate.astype(jnp.int32) + start
  if params is None:
    return _Found(position, (), count)
  value = _slice(params[entry.path], entry).reshape(-1)[here]
  bits = jax.lax.bitcast_convert_type(value, _bits(value.dtype))
  return _Found(position, bits, count)


def _scatter(
  base: Array, entry: Entry, layout: Layout, packed: Packed, used: Array
) -> Array:
  """Returns this device's shard with the values of one entry in place."""
  spec = _slice_spec(layout.specs[entry.path], base.ndim, entry)
  local = list(base.shape)
  if entry.axis is not None:
    del local[entry.axis]
  extents = [
    _extent(layout.mesh, spec, d, size) for d, size in enumerate(local)
  ]
  rest, inside = packed.positions, used
  index: list[Any] = []
  for (start, whole), size in reversed(list(zip(extents, local, strict=True))):
    at = rest % whole - start
    rest = rest // whole
    inside &= (at >= 0) & (at < size)
    index.insert(0, at)
  # Out of range is dropped; a negative number would count from the end.
  index = [jnp.where(inside, at, n) for at, n in zip(index, local, strict=True)]
  if entry.axis is not None:
    index.insert(entry.axis, jnp.int32(entry.layer))
  values = True if isinstance(packed.values, tuple) else packed.values
  if not index:  # a scalar has one place, or none
    first = values if values is True else values[jnp.argmax(inside)]
    return jnp.where(jnp.any(inside), first, base)
  return base.at[tuple(index)].set(values, mode='drop')


def _sorted(positions: Array, bits: Any, counts: Array, dtype: Any) -> Packed:
  """Orders what the devices found; the order must not depend on the mesh."""
  owner = _owner(counts, positions.shape[0])
  if isinstance(bits, tuple):
    _, positions = jax.lax.sort((owner, positions), num_keys=2)
    return Packed(positions, (), counts)
  _, positions, bits = jax.lax.sort((owner, positions, bits), num_keys=2)
  return Packed(positions, jax.lax.bitcast_convert_type(bits, dtype), counts)


def _owner(counts: Array, k: int) -> Int32[Array, ' k']:
  """Returns the entry that each place belongs to; past the last if unused."""
  ends = jnp.cumsum(counts)
  return jnp.searchsorted(ends, jnp.arange(k), side='right').astype(jnp.int32)


def _slice(x: Array, entry: Entry) -> Array:
  if entry.axis is None:
    return x
  return jax.lax.index_in_dim(x, entry.layer, entry.axis, keepdims=False)


def _slice_spec(
  spec: PartitionSpec, ndim: int, entry: Entry
) -> tuple[tuple[str, ...], ...]:
  """Returns the mesh axes of every dimension, without the stack's."""
  dims = [
    () if d >= len(spec) or spec[d] is None else spec[d] for d in range(ndim)
  ]
  names = [d if isinstance(d, tuple) else (d,) for d in dims]
  if entry.axis is not None:
    if names[entry.axis]:
      raise NotImplementedError(
        f'parameter {entry.path!r}: a stack whose layer axis is sharded cannot '
        'be cut into slices; leave the layers axis unsharded'
      )
    del names[entry.axis]
  return tuple(names)


def _extent(
  mesh: Mesh, spec: tuple[tuple[str, ...], ...], d: int, local: int
) -> tuple[Array | int, int]:
  """Returns where this device's shard begins in a dimension, and its length."""
  parts = math.prod(mesh.shape[a] for a in spec[d])
  if parts == 1:
    return 0, local
  return _linear_index(mesh, spec[d]) * local, local * parts


def _copy_index(mesh: Mesh, spec: tuple[tuple[str, ...], ...]) -> Array:
  """Returns which of the devices with the same shard this one is."""
  used = {name for names in spec for name in names}
  return _linear_index(mesh, tuple(a for a in mesh.axis_names if a not in used))


def _linear_index(mesh: Mesh, names: tuple[str, ...]) -> Array:
  index = jnp.int32(0)
  for name in names:
    index = index * mesh.shape[name] + jax.lax.axis_index(name)
  return index


def _bits(dtype: Any) -> Any:
  return jnp.dtype(f'uint{8 * jnp.dtype(dtype).itemsize}')


def _dtype(inside: tuple[Entry, ...], dtypes: Mapping[str, Any]) -> Any:
  found = {jnp.dtype(dtypes[entry.path]) for entry in inside}
  if len(found) != 1:
    names = ', '.join(sorted(d.name for d in found))
    raise NotImplementedError(
      f'parameters of one silo have different dtypes ({names}), among them '
      f'{inside[0].path!r}: give them silos of their own'
    )
  return found.pop()
