"""Small replicated arrays of a subset, put into sharded parameters."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array

from dst_t5x.arrays import flat_access
from dst_t5x.checkpoint import shards
from dst_t5x.checkpoint.packing import Packed, owner, silo_parts
from dst_t5x.checkpoint.shards import SiloPart
from dst_t5x.core.counting import Partitioning
from dst_t5x.core.silos import Silos


def unpack(
  silos: Silos,
  partitioning: Partitioning,
  packed: tuple[Packed, ...],
  base: Mapping[str, jax.Array],
) -> dict[str, jax.Array]:
  """Returns the parameters with the packed values at their positions.

  Args:
    silos: the partition.
    partitioning: of the parameters.
    packed: from `pack`; where it holds no values, True is written.
    base: parameters, or masks, by path.

  Returns:
    A new tree of arrays, sharded as `base`.
  """
  parts_of_silos = silo_parts(silos)

  def local(packed: tuple[Packed, ...], base: dict[str, Array]) -> Any:
    result = dict(base)
    for silo, parts in zip(packed, parts_of_silos, strict=True):
      if not silo.positions.shape[0]:
        continue
      owners = owner(silo.counts, silo.positions.shape[0])
      for number, part in enumerate(parts):
        result[part.path] = _scatter(
          result[part.path], part, partitioning, silo, owners == number
        )
    return result

  specs = {path: partitioning.specs[path] for path in base}
  return jax.shard_map(
    local,
    mesh=partitioning.mesh,
    in_specs=(PartitionSpec(), specs),
    out_specs=specs,
    check_vma=False,
  )(packed, dict(base))


def _scatter(
  base: Array,
  part: SiloPart,
  partitioning: Partitioning,
  packed: Packed,
  used: Array,
) -> Array:
  """Returns this device's shard with the values of one silo part in place."""
  spec = shards.slice_spec(partitioning.specs[part.path], base.ndim, part)
  local = list(base.shape)
  if part.axis is not None:
    del local[part.axis]
  extents = [
    shards.extent(partitioning.mesh, spec, d, size)
    for d, size in enumerate(local)
  ]
  rest, here = packed.positions, used
  index: list[Any] = []
  for (start, whole), size in reversed(list(zip(extents, local, strict=True))):
    at = rest % whole - start
    rest = rest // whole
    here &= (at >= 0) & (at < size)
    index.insert(0, at)
  # Out of range is dropped; a negative number would count from the end.
  index = [jnp.where(here, at, n) for at, n in zip(index, local, strict=True)]
  if part.axis is not None:
    index.insert(part.axis, jnp.int32(part.layer))
  values = True if isinstance(packed.values, tuple) else packed.values
  if not index:  # a scalar has one place, or none
    first = values if values is True else values[jnp.argmax(here)]
    return jnp.where(jnp.any(here), first, base)
  return flat_access.put(base, tuple(index), values)
