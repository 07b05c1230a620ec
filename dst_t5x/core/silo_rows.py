"""Rows: what a tensor, or one slice of a stack, puts into its silo.

Counts come by row, in the order of `Silos.placements`. Here they are added up
by silo, and the rows' own numbers laid against the scores of their tensor.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Shaped

from dst_t5x.core.silos import Silos

_INT32_MAX = 2**31 - 1
_ONE_EACH = jax.lax.GatherDimensionNumbers(
  offset_dims=(), collapsed_slice_dims=(0,), start_index_map=(0,)
)


def row_silos(silos: Silos) -> np.ndarray:
  """Returns the silo of every row that `count` returns.

  Args:
    silos: the partition.

  Returns:
    int32[rows], indices into `silos.names`.
  """
  return np.concatenate(
    [np.asarray(p.silos, np.int32) for p in silos.placements.values()]
  )


def per_silo(
  silos: Silos, counts: Int32[Array, 'rows width']
) -> Int32[Array, 'silos width']:
  """Returns the sum of the rows of every silo, at most 2³¹ − 1.

  A silo can hold more parameters than int32 counts. Budgets are below 2³¹, so a
  sum that stops at the top still compares with them correctly.

  Args:
    silos: the partition.
    counts: rows as `count` returns them.

  Returns:
    One row a silo.
  """
  ids = row_silos(silos)
  # Two limbs of 15 and 16 bits: neither sum overflows up to 32,768 rows a silo.
  low = jax.ops.segment_sum(counts & 0x7FFF, ids, len(silos.names))
  high = jax.ops.segment_sum(counts >> 15, ids, len(silos.names)) + (low >> 15)
  return _joined(high, low)


def earlier_in_silo(
  silos: Silos, counts: Int32[Array, ' rows']
) -> Int32[Array, ' rows']:
  """Returns the sum of the rows of the same silo that come before each row.

  Args:
    silos: the partition.
    counts: one number a row.

  Returns:
    One sum a row, at most 2³¹ − 1.

  Example:
    >>> from dst_t5x.core.silos import assign
    >>> silos = assign({'a/u': (9,), 'b/u': (9,), 'a/v': (9,)})
    >>> earlier_in_silo(silos, jnp.int32([4, 2, 3])).tolist()
    [0, 0, 4]
  """
  ids = row_silos(silos)
  by_silo = np.argsort(ids, kind='stable')
  first = np.searchsorted(ids[by_silo], ids[by_silo])  # of the same silo
  back = np.argsort(by_silo, kind='stable')

  def earlier(x: Array) -> Array:
    ends = jnp.cumsum(x[by_silo])
    begins = ends - x[by_silo]
    return (begins - begins[first])[back]

  # As in `per_silo`; a sum over all rows may wrap around, differences do not.
  low = earlier(counts & 0x7FFF)
  return _joined(earlier(counts >> 15) + (low >> 15), low)


def positions(
  shape: tuple[int, ...],
  axis: int | None,
  local_shape: tuple[int, ...] | None = None,
  starts: Sequence[Array] | None = None,
) -> Int32[Array, '...']:
  """Returns the row-major index of every number of a tensor, or of a slice.

  Args:
    shape: of the whole tensor.
    axis: axis along which it stacks slices, which are numbered each from 0; or
      None.
    local_shape: of the part that is asked for; None for the whole.
    starts: where that part begins along every axis; None for the whole.

  Returns:
    Indices, of the shape of the part.

  Example:
    >>> positions((2, 3), None).tolist()
    [[0, 1, 2], [3, 4, 5]]
    >>> positions((2, 3), 1).tolist()
    [[0, 0, 0], [1, 1, 1]]
  """
  local_shape = shape if local_shape is None else local_shape
  index = jnp.zeros(local_shape, jnp.int32)
  stride = 1
  for d in reversed(range(len(shape))):
    if d != axis:
      along_d = jax.lax.broadcasted_iota(jnp.int32, local_shape, d)
      if starts is not None:
        along_d += starts[d]
      index += along_d * jnp.int32(stride)
      stride *= shape[d]
  return index


def by_path(silos: Silos, x: Shaped[Array, ' rows']) -> dict[str, Array]:
  """Returns every tensor's own rows, shaped to be compared with its scores.

  Args:
    silos: the partition.
    x: one number, which is not NaN, for every row.

  Returns:
    By path a scalar, or for a stack the numbers of its slices.

  Example:
    >>> from dst_t5x.core.silos import assign
    >>> silos = assign(
    ...   {'w': (2,), 'layers/u': (3, 4)}, stack_axes={'layers/u': 1}
    ... )
    >>> {p: v.tolist() for p, v in by_path(silos, jnp.arange(5)).items()}
    {'w': 0, 'layers/u': [1, 2, 3, 4]}
  """
  padded = jnp.append(x, jnp.zeros_like(x[:1]))
  parts, start = {}, 0
  for path, placement in silos.placements.items():
    end = start + len(placement.silos)
    if placement.axis is None:
      # Not x[start]: the compiler would make the index part of the program that
      # uses the number, and compile it for each tensor. Read from a table, the
      # programs of tensors of one shape are the same, and compiled once.
      number_and_zero = np.asarray([[start], [len(x)]], np.int32)
      parts[path] = jnp.sum(
        jax.lax.gather(
          padded, number_and_zero, _ONE_EACH, (1,), mode='promise_in_bounds'
        ),
        dtype=x.dtype,
      )
    else:
      parts[path] = x[start:end]
    start = end
  return parts


def along(x: Array, ndim: int, axis: int | None) -> Array:
  """Returns a tensor's own rows, shaped to be compared with its scores.

  Args:
    x: from `by_path`.
    ndim: number of axes of the scores.
    axis: the stack's axis, or None.

  Returns:
    A scalar, or the numbers along the stack's axis.
  """
  if axis is None:
    return x
  shape = [1] * ndim
  shape[axis] = x.shape[0]
  return x.reshape(shape)


def _joined(high: Array, low: Array) -> Array:
  """Returns high 2¹⁵ + (low mod 2¹⁵), at most 2³¹ − 1."""
  total = (high << 15) | (low & 0x7FFF)
  return jnp.where(high > 0xFFFF, jnp.int32(_INT32_MAX), total)
