"""Which device of a mesh runs a program, and which part of the work is its own.

Devices that hold the same shard of an array would all do the same. They split
the shard along an axis that they divide; where there is none, the first of them
takes all of it.
"""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

# The axes of a mesh over which each dimension of an array is sharded.
Spec = tuple[tuple[str, ...], ...]


class Copies(NamedTuple):
  """Devices that hold the same shard.

  Attributes:
    axes: names of the axes of the mesh along which they lie.
    number: how many they are (count).
    split: the dimension of the shard that they share; None if they cannot.
  """

  axes: tuple[str, ...]
  number: int
  split: int | None


def linear_index(mesh: Mesh, axes: Sequence[str]) -> jax.Array:
  """Returns this device's number along some axes of a mesh, the last fastest.

  For code inside `shard_map`.

  Args:
    mesh: the devices.
    axes: names of axes of the mesh.

  Returns:
    int32 scalar in [0, product of the sizes of the axes).
  """
  index = jnp.int32(0)
  for axis in axes:
    index = index * mesh.shape[axis] + jax.lax.axis_index(axis)
  return index


def by_dimension(spec: PartitionSpec, ndim: int) -> Spec:
  """Returns the mesh axes of every dimension of an array.

  Args:
    spec: partition of the array; it may be shorter than its shape.
    ndim: number of dimensions.

  Returns:
    Names of axes, none where a dimension is not sharded.

  Example:
    >>> by_dimension(PartitionSpec('model'), 2)
    (('model',), ())
  """
  names = [
    () if d >= len(spec) or spec[d] is None else spec[d] for d in range(ndim)
  ]
  return tuple(n if isinstance(n, tuple) else (n,) for n in names)


def copies(
  mesh: Mesh, sharded: Collection[str], shard_shape: Sequence[int] = ()
) -> Copies:
  """Returns which devices hold the same shard of an array.

  Args:
    mesh: the devices.
    sharded: names of the axes of the mesh over which the array is sharded.
    shard_shape: of a device's shard, for the dimension that they share.

  Returns:
    The devices.
  """
  axes = tuple(a for a in mesh.axis_names if a not in sharded)
  number = math.prod(mesh.shape[a] for a in axes)
  split = None
  if number > 1:
    split = next(
      (d for d, n in enumerate(shard_shape) if n and n % number == 0), None
    )
  return Copies(axes, number, split)


def own_parts(
  shards: Sequence[jax.Array],
  holders: Copies,
  mesh: Mesh,
  *,
  nothing: float,
  leading: int = 0,
) -> list[jax.Array]:
  """Returns the part of shards that this device works on, inside `shard_map`.

  Args:
    shards: arrays of one shape, this device's.
    holders: who holds the same, from `copies`.
    mesh: the devices.
    nothing: what stands in the parts of devices that have no work.
    leading: dimensions of the shards before those that `holders` counts.

  Returns:
    One part of each shard.
  """
  if holders.number == 1:
    return list(shards)
  index = linear_index(mesh, holders.axes)
  if holders.split is None:
    return [jnp.where(index == 0, x, jnp.full_like(x, nothing)) for x in shards]
  d = holders.split + leading
  width = shards[0].shape[d] // holders.number
  return [
    jax.lax.dynamic_slice_in_dim(x, index * width, width, d) for x in shards
  ]
