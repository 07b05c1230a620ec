"""A sharded subset as a few small arrays; `unpacking` goes back.

What a checkpoint keeps of a silo are the positions and the values of the
parameters in its subset, k of each at most. The parameters stay where they are:
every device looks through its own shards, tensor by tensor, with programs of
`extraction`, and this module puts what they found together on the host.

A silo consists of *parts*: tensors, or slices of a stack. Positions are flat,
row-major and within one part; `counts` says how many belong to each part, so
that four bytes a position are enough whatever the silo's size.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dst_t5x.checkpoint import extraction, shards
from dst_t5x.checkpoint.extraction import TensorPlace
from dst_t5x.checkpoint.shards import SiloPart
from dst_t5x.core.counting import Partitioning
from dst_t5x.core.silos import Silos

# Positions and values of a part.
_Found = tuple[np.ndarray, Any]


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
  params: Mapping[str, jax.Array],
  seed: Mapping[str, jax.Array],
) -> tuple[Packed, ...]:
  """Returns where parameters differ from the seed, and what they are there.

  Bits are compared. Where more than k of a silo differ, the counts say so:
  their sum exceeds k, and positions and values are 0. Callers must check it.

  Args:
    silos: the partition.
    budgets: k of every silo (count).
    partitioning: of the parameters.
    params: Θ by path.
    seed: Θ⁰ by path; it may lie in another kind of memory.

  Returns:
    One `Packed` of NumPy arrays a silo, the same in every process and on every
    mesh. All processes must call this together.
  """
  return _packed(silos, budgets, partitioning, params, seed)


def pack_masks(
  silos: Silos,
  budgets: tuple[int, ...],
  partitioning: Partitioning,
  masks: Mapping[str, jax.Array],
) -> tuple[Packed, ...]:
  """Returns where masks are True; otherwise as `pack`.

  Args:
    silos: the partition.
    budgets: k of every silo (count).
    partitioning: of the masks.
    masks: bool, by path.

  Returns:
    One `Packed` a silo, without values.
  """
  return _packed(silos, budgets, partitioning, masks, None)


def _packed(
  silos: Silos,
  budgets: tuple[int, ...],
  partitioning: Partitioning,
  arrays: Mapping[str, jax.Array],
  seed: Mapping[str, jax.Array] | None,
) -> tuple[Packed, ...]:
  counts: dict[str, np.ndarray] = {}
  found: dict[tuple[str, int], _Found] = {}
  for path, placement in silos.placements.items():
    place = TensorPlace(
      partitioning.mesh, partitioning.specs[path], placement.axis
    )
    operands = (arrays[path],)
    if seed is not None:
      operands += (shards.beside(seed[path], arrays[path]),)
    counts[path] = extraction.count(place, operands)
    for layer, number in enumerate(counts[path].tolist()):
      # A part with more than its silo's budget is an error, not a delta.
      if 0 < number <= budgets[placement.silos[layer]]:
        found[path, layer] = extraction.find(place, operands, layer, number)
  return tuple(
    _silo(k, parts, counts, found, None if seed is None else arrays)
    for k, parts in zip(budgets, silo_parts(silos), strict=True)
  )


def _silo(
  k: int,
  parts: tuple[SiloPart, ...],
  counts: Mapping[str, np.ndarray],
  found: Mapping[tuple[str, int], _Found],
  params: Mapping[str, Any] | None,
) -> Packed:
  """Returns what was found in the parts of one silo, one after the other."""
  keys = [(part.path, part.layer or 0) for part in parts]
  numbers = np.array([counts[path][at] for path, at in keys], np.int32)
  packed = Packed(
    np.zeros(k, np.int32),
    () if params is None else np.zeros(k, params[parts[0].path].dtype),
    numbers,
  )
  if numbers.sum(dtype=np.int64) > k:
    return packed
  end = 0
  for key, number in zip(keys, numbers.tolist(), strict=True):
    own = slice(end, end + number)
    end = own.stop
    if number:
      packed.positions[own], values = found[key]
      if params is not None:
        packed.values[own] = values
  return packed


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
