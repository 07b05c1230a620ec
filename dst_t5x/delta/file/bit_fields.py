"""Whole numbers side by side, each in as many bits as its width says.

Field i takes `widths[i]` bits, lowest bit first, right after field i − 1; bit j
of the stream is bit j % 8 of byte j // 8. Zeros fill the last byte up.
"""

import numpy as np
from jaxtyping import Int64, UInt64

MAX_WIDTH = 63


def pack(
  values: UInt64[np.ndarray, ' k'], widths: Int64[np.ndarray, ' k']
) -> bytes:
  """Returns the fields as bytes.

  Args:
    values: the fields, each below 2^width.
    widths: width of every field, from 0 to 63 (bits).

  Returns:
    ceil(sum(widths) / 8) bytes.

  Example:
    >>> pack(np.uint64([1, 5]), np.int64([2, 3])).hex()
    '15'
  """
  if not values.size:
    return b''
  ends = np.cumsum(widths)
  word, shift = _locate(ends - widths)
  # A field starts in one 64-bit word and can end in the next. Fields are
  # narrower than a word, so at least one starts in every word; all that start
  # in the same word are or-ed together.
  words = np.zeros(int(word[-1]) + 2, np.uint64)
  runs = np.flatnonzero(np.diff(word, prepend=-1))
  words[:-1] = np.bitwise_or.reduceat(values << shift, runs)
  carry = (values >> np.uint64(1)) >> (np.uint64(63) - shift)
  carried = np.flatnonzero(carry)
  words[word[carried] + 1] |= carry[carried]
  return words.astype('<u8').tobytes()[: byte_size(int(ends[-1]))]


def unpack(
  data: bytes | memoryview, widths: Int64[np.ndarray, ' k']
) -> UInt64[np.ndarray, ' k']:
  """Returns the fields that `pack` was given.

  Args:
    data: the bytes that `pack` returned, and no more.
    widths: width of every field, from 0 to 63 (bits).

  Returns:
    The fields.

  Raises:
    ValueError: if there are more or fewer bytes, or bits after the last field
      are not zero.

  Example:
    >>> unpack(bytes.fromhex('15'), np.int64([2, 3]))
    array([1, 5], dtype=uint64)
  """
  ends = np.cumsum(widths)
  size = int(ends[-1]) if ends.size else 0
  if len(data) != byte_size(size):
    raise ValueError(f'{size} bits of fields are in {len(data)} bytes')
  if size % 8 and data[-1] >> size % 8:
    raise ValueError('bits behind the last field are not zero')
  words = np.zeros(size // 64 + 2, '<u8')
  words.view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
  words = words.astype(np.uint64, copy=False)
  word, shift = _locate(ends - widths)
  low = words[word] >> shift
  high = (words[word + 1] << np.uint64(1)) << (np.uint64(63) - shift)
  mask = (np.uint64(1) << widths.astype(np.uint64)) - np.uint64(1)
  return (low | high) & mask


def byte_size(bits: int) -> int:
  """Returns how many bytes hold a number of bits.

  Args:
    bits: number of bits (count).

  Returns:
    ceil(bits / 8).

  Example:
    >>> byte_size(9)
    2
  """
  return (bits + 7) // 8


def _locate(
  starts: Int64[np.ndarray, ' k'],
) -> tuple[Int64[np.ndarray, ' k'], UInt64[np.ndarray, ' k']]:
  """Returns in which 64-bit word, and at which of its bits, fields start."""
  return starts >> 6, (starts & 63).astype(np.uint64)
