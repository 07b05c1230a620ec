"""Reading and writing single entries of an array by flat position.

A JAX array is handled shard by shard on the devices that hold it: nothing is
gathered, resharded or copied to the host as a whole, and the outcome lies as
the input did.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int64

from dst_t5x.arrays import bit_types, dtypes, fingerprints


def gather(
  leaf: Any, positions: Int64[np.ndarray, ' k'], path: str
) -> np.ndarray:
  """Returns the values at flat positions.

  Args:
    leaf: NumPy or JAX array.
    positions: row-major, within its size.
    path: its path, for the error.

  Returns:
    [k], in this machine's byte order.

  Raises:
    ValueError: if it is no array of a supported dtype.
    NotImplementedError: if it is spread over several processes.

  Example:
    >>> gather(np.float32([[1, 2], [3, 4]]), np.int64([1, 2]), 'a')
    array([2., 3.], dtype=float32)
  """
  if not isinstance(leaf, jax.Array) or not leaf.shape:
    array = fingerprints.to_host(leaf, path)
    if array.flags.c_contiguous:  # a view, and quicker
      values = array.reshape(-1)[positions]
    else:
      values = array[np.unravel_index(positions, array.shape)]
    return values.astype(dtypes.DTYPES[array.dtype.name], copy=False)
  fingerprints.check_visible(leaf, path)
  values = np.empty(positions.size, leaf.dtype)
  seen = set()
  for data, region, inside, local in _shards(leaf, positions):
    if region in seen or not inside.size:  # replicas agree
      continue
    seen.add(region)
    # Position 0 fills up to a power of two, so that few lengths are compiled.
    index = tuple(_padded(axis, 0) for axis in local)
    values[inside] = np.asarray(data[index])[: inside.size]
  return values


def scatter(
  leaf: Any,
  positions: Int64[np.ndarray, ' k'],
  values: np.ndarray,
  path: str,
  *,
  donate: bool = False,
) -> Any:
  """Returns an array with other values at flat positions.

  Args:
    leaf: NumPy or JAX array; not changed, unless it is donated.
    positions: row-major, within its size, none twice.
    values: [k], of the array's dtype.
    path: its path, for the error.
    donate: gives up a JAX array: the result has its buffers, and it is deleted.

  Returns:
    An array of the same kind, dtype and sharding.

  Raises:
    ValueError: if it is no array of a supported dtype.

  Example:
    >>> scatter(np.float32([1, 2]), np.int64([1]), np.float32([5]), 'a')
    array([1., 5.], dtype=float32)
  """
  if not isinstance(leaf, jax.Array):
    result = np.array(fingerprints.to_host(leaf, path), order='C')
    result.reshape(-1)[positions] = values
    return result if isinstance(leaf, np.ndarray) else result[()]
  if not leaf.shape:
    value = values.reshape(()) if values.size else leaf
    return jax.device_put(value, leaf.sharding)
  shards = []
  for data, _, inside, local in list(_shards(leaf, positions)):
    if inside.size:
      # What lies past the end of the first axis is dropped.
      index = tuple(
        _padded(part, data.shape[0] if axis == 0 else 0)
        for axis, part in enumerate(local)
      )
      new = np.zeros(index[0].size, values.dtype)
      new[: inside.size] = values[inside]
      data = (_put_donated if donate else _put)(data, index, new)
    shards.append(data)
  return jax.make_array_from_single_device_arrays(
    leaf.shape, leaf.sharding, shards
  )


def put(data: jax.Array, index: Any, values: Any) -> jax.Array:
  """Returns an array with values at an index, whose bits are kept.

  Args:
    data: any shape and dtype.
    index: as in `data.at[index]`; what is out of range is dropped.
    values: of the same dtype.

  Returns:
    The new array; can be compiled.

  Example:
    >>> put(jnp.zeros(3), jnp.array([1, 5]), jnp.array([2.0, 7.0]))
    Array([0., 2., 0.], dtype=float32)
  """
  # Where a float is scattered as a wider one, a signalling NaN comes back
  # quiet: bits are scattered instead.
  if data.dtype == jnp.bool_:
    return data.at[index].set(values, mode='drop')
  kind = bit_types.unsigned(data.dtype)
  as_bits = functools.partial(jax.lax.bitcast_convert_type, new_dtype=kind)
  bits = as_bits(data).at[index].set(as_bits(values), mode='drop')
  return jax.lax.bitcast_convert_type(bits, data.dtype)


_put = jax.jit(put)
_put_donated = jax.jit(put, donate_argnums=0)


def _shards(
  leaf: jax.Array, positions: Int64[np.ndarray, ' k']
) -> Iterator[
  tuple[jax.Array, tuple[tuple[int, int], ...], np.ndarray, list[np.ndarray]]
]:
  """Yields each shard's data, region, and which positions are where in it."""
  if max(leaf.shape) >= 2**31:
    raise NotImplementedError(
      f'axes of {leaf.shape} are too long for the 32-bit indices of JAX'
    )
  index = np.unravel_index(positions, leaf.shape)
  for shard in leaf.addressable_shards:
    region = tuple(
      part.indices(size)[:2]
      for part, size in zip(shard.index, leaf.shape, strict=True)
    )
    inside = np.ones(positions.size, bool)
    for axis, (start, stop) in zip(index, region, strict=True):
      inside &= (axis >= start) & (axis < stop)
    inside = np.flatnonzero(inside)
    local = [
      (axis[inside] - start).astype(np.int32)
      for axis, (start, _) in zip(index, region, strict=True)
    ]
    yield shard.data, region, inside, local


def _padded(axis: np.ndarray, fill: int) -> np.ndarray:
  result = np.full(1 << (axis.size - 1).bit_length(), fill, np.int32)
  result[: axis.size] = axis
  return result
