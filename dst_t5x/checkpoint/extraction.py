"""Programs that look for a subset in one sharded tensor, or one slice of it.

They are compiled once for all tensors of the same shape, dtype and partition:
a model repeats its few shapes in every layer, so that what is compiled does not
grow with the number of layers. Every device looks through its own shard, and
small collectives put together what all of them have. All processes of a mesh
must call them in the same order.

A subset is where one array, a mask, is True, or where the bits of two differ:
−0.0 is not 0.0, and a NaN equals itself.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from dst_t5x.arrays import flat_access, mesh_index
from dst_t5x.checkpoint import shards

_PLAIN = PartitionSpec()


class TensorPlace(NamedTuple):
  """How a tensor lies on a mesh, and how it is cut.

  Attributes:
    mesh: the devices.
    spec: partition of the tensor.
    axis: the axis along which it stacks its layers, or None.
  """

  mesh: Mesh
  spec: PartitionSpec
  axis: int | None


def room(count: int, most: int) -> int:
  """Returns for how many positions a program is compiled that finds `count`.

  A power of 4 times 1024, so that few programs serve all counts.

  Args:
    count: of positions.
    most: that there can be (count).

  Returns:
    A number from `count` to `most`.

  Example:
    >>> room(10, 5000), room(1025, 5000), room(4097, 5000)
    (1024, 4096, 5000)
  """
  size = 1024
  while size < count:
    size *= 4
  return min(size, most)


def count(place: TensorPlace, operands: tuple[jax.Array, ...]) -> np.ndarray:
  """Returns the size of the subset in a tensor.

  Args:
    place: of the tensor.
    operands: a mask, or two arrays to be compared.

  Returns:
    int32[layers] (count); [1] if the tensor is not cut.
  """
  return np.asarray(_counter(place)(*operands))


def find(
  place: TensorPlace,
  operands: tuple[jax.Array, ...],
  layer: int,
  number: int,
) -> tuple[np.ndarray, Any]:
  """Returns positions, and values if there are any, of a subset.

  Args:
    place: of the tensor.
    operands: a mask; or two arrays, the first of which has the values.
    layer: which slice, if the tensor is cut.
    number: size of the subset there, from `count`.

  Returns:
    int32[number], flat and row-major within the slice, sorted; and the values
    there, () for a mask.
  """
  whole = operands[0].size
  if place.axis is not None:
    whole //= operands[0].shape[place.axis]
  found = _finder(place, room(number, whole))(np.int32(layer), *operands)
  positions, bits = (np.asarray(x)[:number] for x in found)
  if place.mesh.size > 1:  # of several devices, one after the other
    order = np.argsort(positions, kind='stable')
    positions, bits = positions[order], bits[order]
  if len(operands) == 1:
    return positions, ()
  return positions, bits.view(operands[0].dtype)


def _subset(operands: tuple[Array, ...]) -> Array:
  if len(operands) == 1:
    return operands[0]
  first, second = operands
  return flat_access.as_bits(first) != flat_access.as_bits(second)


@functools.cache
def _counter(place: TensorPlace) -> Any:
  mesh, _, axis = place

  def local(*operands: Array) -> Array:
    mask = _subset(operands)
    spec = mesh_index.by_dimension(place.spec, mask.ndim)
    dims = tuple(d for d in range(mask.ndim) if d != axis)
    counts = jnp.atleast_1d(jnp.sum(mask, dims, dtype=jnp.int32))
    # Of devices with the same shard only the first counts.
    counts *= (shards.copy_index(mesh, spec) == 0).astype(jnp.int32)
    if axis is not None:
      start, layers = shards.extent(mesh, spec, axis, mask.shape[axis])
      everywhere = jnp.zeros(layers, jnp.int32)
      counts = jax.lax.dynamic_update_slice(everywhere, counts, (start,))
    return jax.lax.psum(counts, mesh.axis_names)

  return _everywhere(place, local, ())


@functools.cache
def _finder(place: TensorPlace, size: int) -> Any:
  mesh, _, axis = place

  def local(layer: Array, *operands: Array) -> tuple[Array, Array]:
    spec = mesh_index.by_dimension(place.spec, operands[0].ndim)
    reports = shards.copy_index(mesh, spec) == 0
    if axis is not None:
      length = operands[0].shape[axis]
      start, _ = shards.extent(mesh, spec, axis, length)
      at = layer - start
      reports &= (at >= 0) & (at < length)
      at = jnp.clip(at, 0, length - 1)
      operands = tuple(
        jax.lax.dynamic_index_in_dim(x, at, axis, keepdims=False)
        for x in operands
      )
      spec = spec[:axis] + spec[axis + 1 :]
    mask = _subset(operands)
    flat = jnp.cumsum(mask.reshape(-1), dtype=jnp.int32)
    number = flat[-1] * reports.astype(jnp.int32)
    # The n-th is where as many have come for the first time.
    here = jnp.searchsorted(flat, jnp.arange(1, size + 1, dtype=jnp.int32))
    here = jnp.minimum(here.astype(jnp.int32), flat.shape[0] - 1)
    positions = jnp.zeros(size, jnp.int32)
    for d, at in enumerate(jnp.unravel_index(here, mask.shape)):
      start, whole = shards.extent(mesh, spec, d, mask.shape[d])
      positions = positions * whole + at.astype(jnp.int32) + start
    bits = positions
    if len(operands) > 1:
      bits = flat_access.as_bits(operands[0].reshape(-1)[here])
    if mesh.size == 1:
      return positions, bits
    place_ = _places(mesh, number, size)
    return jax.lax.psum(
      tuple(
        jnp.zeros(size, x.dtype).at[place_].set(x, mode='drop')
        for x in (positions, bits)
      ),
      mesh.axis_names,
    )

  return _everywhere(place, local, (_PLAIN,))


def _places(mesh: Mesh, number: Array, size: int) -> Array:
  """Returns where a device's own positions go among those of all devices.

  Knowing the counts of all devices, each knows the places of its own.
  """
  counts = jax.lax.all_gather(number, mesh.axis_names).reshape(mesh.size)
  device = mesh_index.linear_index(mesh, mesh.axis_names)
  ahead = jnp.sum(
    jnp.where(jnp.arange(mesh.size) < device, counts, 0), dtype=jnp.int32
  )
  rank = jnp.arange(size, dtype=jnp.int32)
  return jnp.where(rank < number, ahead + rank, size)


def _everywhere(
  place: TensorPlace, local: Any, first: tuple[PartitionSpec, ...]
) -> Any:
  """Returns a function for shards as a program, replicated in its results."""

  def program(*arguments: jax.Array) -> Any:
    operands = len(arguments) - len(first)
    return jax.shard_map(
      local,
      mesh=place.mesh,
      in_specs=(*first, *(place.spec,) * operands),
      out_specs=_PLAIN,
      check_vma=False,
    )(*arguments)

  return jax.jit(program)
