"""The whole numbers whose bits stand for those of a floating type."""

from typing import Any

import jax.numpy as jnp


def unsigned(dtype: Any) -> jnp.dtype:
  """Returns the unsigned type as wide as another type.

  Args:
    dtype: of 1, 2, 4 or 8 bytes.

  Returns:
    The type.

  Example:
    >>> unsigned(jnp.bfloat16)
    dtype('uint16')
  """
  return jnp.dtype(f'uint{8 * jnp.dtype(dtype).itemsize}')
