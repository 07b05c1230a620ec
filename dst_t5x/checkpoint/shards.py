"""Where a device's shard of a tensor, or of one slice of it, begins.

All of this is for code inside `shard_map`, which sees one shard at a time, but
for `replicated`, which makes what such code is given.
"""

import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from dst_t5x.arrays import mesh_index
from dst_t5x.arrays.mesh_index import Spec


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


def extent(
  mesh: Mesh, spec: Spec, d: int, local: int
) -> tuple[Array | int, int]:
  """Returns where this device's shard begins along a dimension.

  Args:
    mesh: the devices.
    spec: of the tensor.
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
  return mesh_index.linear_index(mesh, mesh_index.copies(mesh, used).axes)


def replicated(mesh: Mesh, array: np.ndarray) -> jax.Array:
  """Returns an array that every process has, on every device of a mesh.

  Nothing is compiled or sent to another process.

  Args:
    mesh: the devices.
    array: the same in every process.

  Returns:
    The array, replicated.
  """
  return jax.make_array_from_callback(
    array.shape,
    NamedSharding(mesh, PartitionSpec()),
    lambda index: array[index],
  )


def beside(x: jax.Array, other: jax.Array) -> Any:
  """Returns an array in the kind of memory that another one is in."""
  kind = other.sharding.memory_kind
  if kind is None or x.sharding.memory_kind == kind:
    return x
  return jax.device_put(x, x.sharding.with_memory_kind(kind))
