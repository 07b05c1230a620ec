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


def slice_of(x: Array, entry: Entry) -> Array:
  """Returns an entry of a shard of a tensor."""
  if entry.axis is None or entry.layer is None:
    return x
  return jax.lax.index_in_dim(x, entry.layer, entry.axis, keepdims=False)


def slice_spec(spec: PartitionSpec, ndim: int, entry: Entry) -> Spec:
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


def extent(
  mesh: Mesh, spec: Spec, d: int, local: int
) -> tuple[Array | int, int]:
  """Returns where this device's shard begins in a dimension, and its length."""
  parts = math.prod(mesh.shape[a] for a in spec[d])
  if parts == 1:
    return 0, local
  return mesh_index.linear_index(mesh, spec[d]) * local, local * parts


def copy_index(mesh: Mesh, spec: Spec) -> Array:
  """Returns which of the devices with the same shard this one is."""
  used = {name for names in spec for name in names}
  return mesh_index.linear_index(
    mesh, tuple(a for a in mesh.axis_names if a not in used)
  )
