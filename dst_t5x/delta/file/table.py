"""The table of parameters in a delta file.

JSON: a list with a row [path, dtype, shape, count of positions] for every
parameter, or one row for the same parameter of all layers (see `stacks`).
"""

import itertools
import json
import math
from typing import Any, NamedTuple

from dst_t5x.arrays import dtypes
from dst_t5x.delta.file import numbers, stacks
from dst_t5x.delta.types import DeltaFileError, SubsetDelta


class Parameter(NamedTuple):
  """One row of the table of parameters.

  Attributes:
    path: path of the parameter.
    dtype: name of its dtype.
    shape: shape of the whole parameter.
    selected: how many positions it has (count).
  """

  path: str
  dtype: str
  shape: tuple[int, ...]
  selected: int


def dump(delta: SubsetDelta) -> bytes:
  """Returns the table of a delta.

  Args:
    delta: the delta.

  Returns:
    The JSON, always the same for the same delta.

  Raises:
    DeltaFileError: if there are too many parameters, or a path is no valid
      Unicode.
  """
  _check_total(sum(math.prod(entry.shape) for entry in delta.entries.values()))
  rows = stacks.fold(delta.entries)
  text = json.dumps(rows, ensure_ascii=False, separators=(',', ':'))
  try:
    return text.encode()
  except UnicodeEncodeError as error:
    raise DeltaFileError(f'a path is no valid Unicode: {error}') from error


def version(table: bytes) -> tuple[int, int]:
  """Returns the first version of the format that can read a table.

  Args:
    table: as `dump` returned it.

  Returns:
    (1, 0), or (1, 1) if a row stands for several parameters.

  Example:
    >>> version(b'[["layers_{}","bool",[2],[0,1]]]')
    (1, 1)
  """
  stacked = any(isinstance(row[3], list) for row in json.loads(table))
  return (1, 1) if stacked else (1, 0)


def parse(text: memoryview) -> list[Parameter]:
  """Returns the table of parameters in a file, checked.

  Args:
    text: the JSON.

  Returns:
    A row for every parameter: paths sorted, each once, no count above the size
    of the row's shape.

  Raises:
    DeltaFileError: if the text is no such table.

  Example:
    >>> parse(memoryview(b'[["scale","float32",[512],3]]'))[0].shape
    (512,)
  """
  try:
    rows = json.loads(str(text, 'utf-8'))
  except (ValueError, RecursionError) as error:
    raise DeltaFileError(f'table of parameters: {error}') from error
  if not isinstance(rows, list):
    raise DeltaFileError('table of parameters is no list')
  table = [_row(row) for row in stacks.unfold(rows)]
  for before, after in itertools.pairwise(table):
    if before.path >= after.path:
      raise DeltaFileError(
        f'parameter {after.path!r} follows {before.path!r}: paths must be '
        'sorted, each once'
      )
  _check_total(sum(math.prod(row.shape) for row in table))
  return table


def _row(row: Any) -> Parameter:
  """Returns a row of the table, checked by itself."""
  if not (
    isinstance(row, list)
    and len(row) == 4
    and isinstance(row[0], str)
    and isinstance(row[1], str)
    and isinstance(row[2], list)
    and all(type(size) is int and 0 <= size < 2**63 for size in row[2])
    and type(row[3]) is int
  ):
    raise DeltaFileError(
      f'table of parameters has {str(row)[:80]!r} where [path, dtype, shape, '
      'count] is needed'
    )
  path, dtype, shape, count = row
  if dtype not in dtypes.DTYPES:
    raise DeltaFileError(f'{path!r} has the unknown dtype {dtype[:80]!r}')
  # One factor of 0 must not hide others that overflow.
  if len(shape) > 32 or math.prod(max(size, 1) for size in shape) > 2**63:
    raise DeltaFileError(f'{path!r} has the impossible shape {shape[:32]}')
  if not 0 <= count <= math.prod(shape):
    raise DeltaFileError(f'{path!r} has {count} positions in shape {shape}')
  return Parameter(path, dtype, tuple(shape), count)


def _check_total(total: int) -> None:
  if total > numbers.LARGEST:
    raise DeltaFileError(
      f'{total} parameters are too many; at most {numbers.LARGEST} fit a file'
    )
