"""The number of the device of a mesh on which a program runs."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh


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
