"""Bit patterns of numbers, as whole numbers of the same width."""

from typing import Any

import numpy as np


def unsigned(dtype: Any) -> np.dtype:
  """Returns the unsigned integer type that is as wide as another type.

  Args:
    dtype: a type of 1, 2, 4 or 8 bytes.

  Returns:
    The unsigned integer type, in this machine's byte order.

  Example:
    >>> unsigned(np.float32)
    dtype('uint32')
  """
  return np.dtype(f'u{np.dtype(dtype).itemsize}')


def bits(values: np.ndarray) -> np.ndarray:
  """Returns the bit patterns of an array, so that NaN equals itself.

  Args:
    values: any shape and any dtype of up to 8 bytes.

  Returns:
    Unsigned integers of the same width and shape, sharing the memory.

  Example:
    >>> bits(np.float32([-0.0]))
    array([2147483648], dtype=uint32)
  """
  return values.view(unsigned(values.dtype))
