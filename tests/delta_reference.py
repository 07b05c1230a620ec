"""Reads a delta file by FORMAT.md alone, without NumPy or any of our code.

Slow and simple: what the tests compare the real reader and writer with.
"""

import hashlib
import json
import math
import struct
from typing import NamedTuple

WIDTHS = {
  'float64': 8,
  'float32': 4,
  'float16': 2,
  'bfloat16': 2,
  'int32': 4,
  'int8': 1,
}
CODES = {'F64': 8, 'F32': 4, 'F16': 2, 'BF16': 2, 'I32': 4, 'I8': 1, 'U8': 1}


class Entry(NamedTuple):
  dtype: str
  shape: list[int]
  positions: list[int]
  values: list[int]  # bit patterns


def read(
  data: bytes, seed: dict[str, list[int]] | None = None
) -> tuple[dict[str, str], dict[str, Entry]]:
  """Returns metadata, and the entries by path.

  `seed` holds the bit patterns of whole parameters, for differences.
  """
  (length,) = struct.unpack_from('<Q', data)
  header = json.loads(data[8 : 8 + length])
  metadata = header.pop('__metadata__')
  start = 8 + length
  parts, end = {}, 0
  for name, tensor in header.items():
    first, last = tensor['data_offsets']
    assert first == end and last - first == CODES[tensor['dtype']] * math.prod(
      tensor['shape']
    )
    parts[name], end = data[start + first : start + last], last
  assert start + end == len(data) and [*parts][-1] == 'sha256'
  assert hashlib.sha256(data[:-32]).digest() == data[-32:] == parts['sha256']
  table = layers(json.loads(parts['parameters']))
  assert [row[0] for row in table] == sorted({row[0] for row in table})
  steps = numbers(parts['positions'], sum(row[3] for row in table))
  entries, place, offset, steps_left = {}, -1, 0, list(steps)
  for path, dtype, shape, count in table:
    positions = []
    for _ in range(count):
      place += steps_left.pop(0)
      positions.append(place - offset)
    assert all(0 <= position < math.prod(shape) for position in positions)
    offset += math.prod(shape)
    entries[path] = Entry(dtype, shape, positions, [])
  for dtype in {row[1] for row in table if row[3]}:
    of_dtype = [entry for entry in entries.values() if entry.dtype == dtype]
    if f'values.{dtype}' in parts:
      _raw(parts[f'values.{dtype}'], of_dtype)
    else:
      assert seed is not None
      paths = [path for path in entries if entries[path].dtype == dtype]
      _differences(
        parts[f'differences.{dtype}'], of_dtype, [seed[path] for path in paths]
      )
  return metadata, entries


def layers(rows: list[list]) -> list[list]:
  """Returns one row for each parameter, also for those of stacked rows."""
  single = []
  for path, dtype, shape, count in rows:
    if isinstance(count, int):
      single.append([path, dtype, shape, count])
      continue
    assert path.count('{}') == 1
    for layer, each in enumerate(count):
      single.append([path.replace('{}', str(layer)), dtype, shape, each])
  return sorted(single)


def numbers(data: bytes, count: int) -> list[int]:
  """Returns the coded numbers, and checks that no byte is left over."""
  if not count:
    assert not data
    return []
  if data[0] == 64:
    pieces = -(-count // 2**22)
    decoded, used = [], 1
    for i in range(pieces):
      n = count * (i + 1) // pieces - count * i // pieces
      chunk, size = _chunk(data[used:], n)
      decoded += chunk
      used += size
    assert used == len(data)
    return decoded
  width = data[0]
  low = _Bits(data[1:])
  rest = [low.take(width) for _ in range(count)]
  unary = _Bits(data[1 + low.bytes() :])
  decoded = []
  for value in rest:
    quotient = 0
    while not unary.take(1):
      quotient += 1
    decoded.append((quotient << width) + value + 1)
  assert 1 + low.bytes() + unary.bytes() == len(data)
  return decoded


class _Bits:
  """Bits from the lowest of every byte on."""

  def __init__(self, data: bytes):
    self._number = int.from_bytes(data[: 1 << 20], 'little')
    self._used = 0

  def take(self, width: int) -> int:
    value = (self._number >> self._used) & ((1 << width) - 1)
    self._used += width
    return value

  def bytes(self) -> int:
    return (self._used + 7) // 8


def _chunk(data: bytes, count: int) -> tuple[list[int], int]:
  """Returns a chunk's numbers and its size in bytes."""
  symbols = [s for s in range(256) if data[s // 8] >> s % 8 & 1]
  at = 32
  owner = []
  first, frequency = {}, {}
  for symbol in symbols:
    (frequency[symbol],) = struct.unpack_from('<H', data, at)
    first[symbol] = len(owner)
    owner += [symbol] * frequency[symbol]
    at += 2
  assert len(owner) == 2**14
  (words,) = struct.unpack_from('<I', data, at)
  lanes = 16
  while lanes < 1024 and count >= 1024 * lanes:
    lanes *= 2
  states = list(struct.unpack_from(f'<{lanes}I', data, at + 4))
  at += 4 + 4 * lanes
  stream = iter(struct.unpack_from(f'<{words}H', data, at))
  at += 2 * words
  coded = []
  # Lanes take turns, and those that run empty refill in the same order.
  for i in range(count):
    x = states[i % lanes]
    symbol = owner[x % 2**14]
    x = frequency[symbol] * (x // 2**14) + x % 2**14 - first[symbol]
    states[i % lanes] = x if x >= 2**16 else (x << 16) + next(stream)
    coded.append(symbol)
  assert not list(stream) and set(states) == {2**16}
  decoded = []
  for start in range(0, count, 2**13):
    bits = _Bits(data[at:])
    for symbol in coded[start : start + 2**13]:
      exponent, mantissa = divmod(symbol, 4)
      low = bits.take(max(0, exponent - 2))
      whole = 2**exponent * (4 + mantissa)
      assert whole % 4 == 0
      decoded.append(whole // 4 + low)
    at += bits.bytes()
  return decoded, at


def _raw(data: bytes, entries: list[Entry]) -> None:
  at = 0
  for entry in entries:
    width = WIDTHS[entry.dtype]
    for _ in entry.positions:
      entry.values.append(int.from_bytes(data[at : at + width], 'little'))
      at += width
  assert at == len(data)


def _differences(
  data: bytes, entries: list[Entry], seeds: list[list[int]]
) -> None:
  left = iter(numbers(data, sum(len(entry.positions) for entry in entries)))
  for entry, seed in zip(entries, seeds, strict=True):
    width = 8 * WIDTHS[entry.dtype]
    signed = entry.dtype.startswith('int')
    for position in entry.positions:
      number = next(left)
      difference = number // 2 if number % 2 else -(number // 2)
      pattern = seed[position]
      negative = pattern >> (width - 1)
      if not negative:
        place = pattern
      elif signed:
        place = pattern - 2**width
      else:
        place = 2 ** (width - 1) - 1 - pattern
      place += difference
      if place < 0:
        place = place + 2**width if signed else 2 ** (width - 1) - 1 - place
      entry.values.append(place)
