"""Collectives in the text of a compiled program (HLO)."""

import math
import re
from typing import NamedTuple

KINDS = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
)
_LINE = re.compile(
  r'= (.*?) (' + '|'.join(KINDS) + r')(-start)?\(.*?(?:op_name="([^"]*)"|$)',
  re.M,
)
_SHAPE = re.compile(r'\b([a-z]+[0-9a-z]*)\[([\d,]*)\]')
_BITS = {'pred': 8, 's4': 4, 'u4': 4}


class Collective(NamedTuple):
  """An instruction that devices carry out together.

  Attributes:
    kind: its name in HLO, such as 'all-reduce'.
    bytes: size of its results on one device.
    looped: whether it is in the body of a loop.
    shapes: dtypes and shapes of its results, such as 's32[83,15]'.
  """

  kind: str
  bytes: int
  looped: bool
  shapes: tuple[str, ...]


def collectives(text: str) -> list[Collective]:
  """Returns the collectives of a program, in its order.

  Args:
    text: the optimized program, as a compiled step's `as_text()` gives it.

  Returns:
    One for each instruction; those in a loop's body are listed once.

  Example:
    >>> line = ('%a = s32[4,15]{1,0} all-reduce(%b), metadata={'
    ...         'op_name="jit(step)/while/body/psum"}')
    >>> reduction, = collectives(line)
    >>> reduction.kind, reduction.bytes, reduction.looped, reduction.shapes
    ('all-reduce', 240, True, ('s32[4,15]',))
  """
  listed = []
  for match in _LINE.finditer(text):
    results, kind, started, name = match.groups()
    shapes = [(d, s) for d, s in _SHAPE.findall(results) if _bits(d)]
    if started and kind in ('all-gather', 'collective-permute'):
      # Its results: what is sent, then what is received, then counters.
      shapes = shapes[1:2]
    listed.append(
      Collective(
        kind,
        sum(_bytes(dtype, size) for dtype, size in shapes),
        bool(name and 'while/body' in name),
        tuple(f'{dtype}[{size}]' for dtype, size in shapes),
      )
    )
  return listed


def _bits(dtype: str) -> int:
  """Returns the size of an element in bits; 0 if this is no array's dtype."""
  if dtype in _BITS:
    return _BITS[dtype]
  match = re.fullmatch(r'(?:bf|f|s|u|c)(\d+)\w*', dtype)
  return int(match[1]) if match else 0


def _bytes(dtype: str, size: str) -> int:
  count = math.prod(int(axis) for axis in size.split(',') if axis)
  return math.ceil(count * _bits(dtype) / 8)
