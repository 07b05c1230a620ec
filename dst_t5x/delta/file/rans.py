"""Entropy coding of small symbols, many at a time.

Asymmetric numeral systems in the range variant (rANS): a state x is one number
that holds all symbols pushed so far. A symbol of frequency f out of M = 2¹⁴,
whose slots in the table start at c, is pushed by

  x ← (x div f) M + c + (x mod f)

and popped by looking up which symbol owns the slot x mod M. A state is kept in
[2¹⁶, 2³²): before a push that would exceed this range, the low 16 bits of the
state are output as one word; after a pop that falls below it, one word is read.

Symbol i belongs to lane i mod L. Each lane has its own state, and all lanes
share one stream of words, in the order in which popping needs them, so that
NumPy handles L symbols with one call.

Source: J. Duda, arXiv:1311.2540; F. Giesen, arXiv:1402.3392 (interleaving).
"""

import numpy as np
from jaxtyping import Int64, UInt8, UInt16, UInt32

SYMBOLS = 256
_BITS = 14
TOTAL = 1 << _BITS  # M; below 2¹⁶, so that one word a step is enough
_LOW = 1 << 16  # least state
_MAX_LANES = 1024


def lanes(count: int) -> int:
  """Returns the number of lanes L for a number of symbols.

  It is the smallest power of two from 16 to 1024 with count < 1024 L, or 1024
  if there is none: enough lanes to be quick, few enough that their states weigh
  little.

  Args:
    count: number of symbols (count).

  Returns:
    Number of lanes.

  Example:
    >>> lanes(100), lanes(100_000), lanes(10**9)
    (16, 128, 1024)
  """
  result = 16
  while result < _MAX_LANES and count >= 1024 * result:
    result *= 2
  return result


def frequencies(symbols: UInt8[np.ndarray, ' k']) -> Int64[np.ndarray, ' 256']:
  """Returns frequencies of all symbols, near their shares, that sum to M.

  Args:
    symbols: at least one.

  Returns:
    The frequency of every symbol; positive for exactly those that occur.

  Example:
    >>> f = frequencies(np.uint8([0, 0, 7]))
    >>> int(f[0]), int(f[7]), int(f.sum())
    (10923, 5461, 16384)
  """
  counts = np.bincount(symbols, minlength=SYMBOLS).astype(np.int64)
  result = np.maximum(counts * TOTAL // symbols.size, counts > 0)
  # What rounding down left over goes to the most frequent symbol, whose code it
  # changes least. If the sum is too large, because rare symbols were raised to
  # 1, the most frequent symbols give it back, at most half of theirs at a time.
  while (rest := TOTAL - int(result.sum())) != 0:
    top = int(np.argmax(result))
    result[top] += max(rest, -(int(result[top]) // 2))
  return result


def encode(
  symbols: UInt8[np.ndarray, ' k'], table: Int64[np.ndarray, ' 256']
) -> tuple[UInt32[np.ndarray, ' lanes'], UInt16[np.ndarray, ' words']]:
  """Returns the states and words that hold the symbols.

  Args:
    symbols: the symbols, each with a positive frequency.
    table: frequencies, summing to M.

  Returns:
    The state of every lane, and the words.

  Example:
    >>> s = np.uint8([3, 3, 5])
    >>> states, words = encode(s, frequencies(s))
    >>> decode(states, words, frequencies(s), count=3)
    array([3, 3, 5], dtype=uint8)
  """
  width = lanes(symbols.size)
  states = np.full(width, _LOW, np.uint32)
  starts = (np.cumsum(table) - table).astype(np.uint32)
  # A push exceeds the range if x >= f 2³² / M. For f = M that is 2³² itself.
  most = ((table << 32 - _BITS) - 1).astype(np.uint32)
  table = table.astype(np.uint32)
  words = []
  first = (symbols.size - 1) // width * width
  # Popping goes forwards, so pushing goes backwards.
  for start in range(first, -1, -width):
    # NumPy looks indices of its own integer type up twice as fast.
    row = symbols[start : start + width].astype(np.intp)
    x = states[: row.size]
    full = x > most[row]
    words.append(x[full].astype(np.uint16))
    np.right_shift(x, 16, out=x, where=full)
    own = table[row]
    quotient = x // own
    # (x div f) M + (x mod f) = x + (x div f) (M - f)
    quotient *= np.uint32(TOTAL) - own
    x += quotient
    x += starts[row]
  return states, np.concatenate(words[::-1])


def decode(
  states: UInt32[np.ndarray, ' lanes'],
  words: UInt16[np.ndarray, ' words'],
  table: Int64[np.ndarray, ' 256'],
  *,
  count: int,
) -> UInt8[np.ndarray, ' k']:
  """Returns the symbols that `encode` was given.

  Args:
    states: as `encode` returned them.
    words: as `encode` returned them.
    table: frequencies, summing to M.
    count: number of symbols, at least one.

  Returns:
    The symbols.

  Raises:
    ValueError: if the states or words cannot have come from `encode`.

  Example:
    >>> s = np.uint8([9])
    >>> states, words = encode(s, frequencies(s))
    >>> decode(states, words, frequencies(s), count=2)
    array([9, 9], dtype=uint8)
  """
  if states.size != lanes(count) or (states < _LOW).any():
    raise ValueError('a state of the symbols is out of range')
  states = states.astype(np.uint32)  # a copy, in this machine's byte order
  owner = np.repeat(np.arange(SYMBOLS, dtype=np.uint8), table)
  scale = table.astype(np.uint32)[owner]
  starts = (np.cumsum(table) - table).astype(np.uint32)
  bias = np.arange(TOTAL, dtype=np.uint32) - starts[owner]
  symbols = np.empty(count, np.uint8)
  used = 0
  for start in range(0, count, states.size):
    x = states[: count - start]
    slot = (x & np.uint32(TOTAL - 1)).astype(np.intp)
    symbols[start : start + x.size] = owner[slot]
    np.right_shift(x, _BITS, out=x)
    x *= scale[slot]
    x += bias[slot]
    empty = np.flatnonzero(x < _LOW)
    new = words[used : used + empty.size]
    if new.size < empty.size:
      raise ValueError('the words of the symbols end too early')
    x[empty] = (x[empty] << np.uint32(16)) | new
    used += empty.size
  # Every lane must be popped back to the state that pushing began with.
  if used != words.size or (states != _LOW).any():
    raise ValueError('the symbols are damaged')
  return symbols
