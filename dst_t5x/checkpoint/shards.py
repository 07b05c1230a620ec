"""Where a device's shard of a tensor, or of one slice of it, begins.

All of this is for code inside `shard_map`, which sees one shard at a time.
"""

import math
from typing import NamedTuple

import jax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from dst_t5x.arrays import mesh_index

# The mesh axes of every dimension.
Spec = tuple[tuple[str, ...], ...]


class SiloPart(NamedTuple):
  """What a tensor puts into a silo: all of it, or one slice of a stack.

  Attributes:
    path: of the parameter.
    layer: which slice along the stack's axis, or None.
    axis: the stack's axis, or None.
  """

  path: str
  layer: int | None
  axis: int | None


def slice_of(x: Array, part: SiloPart) -> Array:
  """Returns what belongs to a silo part in a shard of its tensor."""
  if part.axis is None or part.layer is None:
    return x
  return jax.lax.index_in_dim(x, part.layer, part.axis, keepdims=False)


def slice_spec(spec: PartitionSpec, ndim: int, part: SiloPart) -> Spec:
  """Returns the mesh axes of every dimension, without the stack's."""
  dims = [
    () if d >= len(spec) or spec[d] is None else spec[d] for d in range(ndim)
  ]
  names = [d if isinstance(d, tuple) else (d,) for d in dims]
  if part.axis is not None:
    if names[part.axis]:
      raise NotImplementedError(
        f'parameter {part.path!r}: a stack whose layer axis is sharded cannot '
        'be cut into slices; leave the layers axis unsharded'
      )
    del names[part.axis]
  return tuple(names)


def extent(
  mesh: Mesh, spec: Spec, d: int, local: int
) -> tuple[Array | int, int]:
  """Returns where this device's shard begins along a dimension.

  Args:
    mesh: the devices.
    spec: of the tensor or slice.
    d: the dimension.
    local: length of the shard along it (count).

  Returns:
    The beginning, and the length of the whole dimension (counts).
  """
  shards = math.prod(mesh.shape[a] for a in spec[d])
  if shards == 1:
    return 0, local
  return mesh_index.linear_index(mesh, spec[d]) * local, local * shards


def copy_index(mesh: Mesh, spec: Spec) -> Array:
  """Returns which of the devices with the same shard this one is."""
  used = {name for names in spec for name in names}
  return mesh_index.linear_index(
    mesh, tuple(a for a in mesh.axis_names if a not in used)
  )
