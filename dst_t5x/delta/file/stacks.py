"""Rows of the table of parameters that stand for a layer after another.

A model repeats its layers, so most of its parameters differ in one number of
their path only: `decoder/layers_{}/mlp/wo/kernel` with 24 counts says all that
24 rows would.
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dst_t5x.delta.types import DeltaEntry, DeltaFileError

HOLE = '{}'
# What rows of a few bytes may grow into.
_MOST_PATHS = 1 << 16
_MOST_CHARACTERS = 1 << 22


def fold(entries: Mapping[str, DeltaEntry]) -> list[list[Any]]:
  """Returns the rows of a table, repeated layers put together.

  Args:
    entries: by path.

  Returns:
    [path, dtype, shape, count], or [path with a hole, dtype, shape, counts] for
    the paths with 0, 1, 2, … in the hole; sorted by path.

  Example:
    >>> import numpy as np
    >>> none = np.int64([]), np.float32([])
    >>> entry = DeltaEntry((3,), np.dtype('float32'), *none)
    >>> fold({'layers_0/scale': entry, 'layers_1/scale': entry, 'scale': entry})
    [['layers_{}/scale', 'float32', [3], [0, 0]], ['scale', 'float32', [3], 0]]
  """
  left, rows = set(entries), []
  if not _may_fold(entries):
    left, rows = set(), [_row(p, e, e.size) for p, e in entries.items()]
  # By the first number in the path, and what that leaves by the second, …
  for which in itertools.count():
    groups = _groups(left, entries, which)
    if not groups:
      break
    for (before, after, *_), group in groups.items():
      found = [f'{before}{i}{after}' for i in range(len(group))]
      if len(found) > 1 and group == set(found):
        counts = [entries[path].size for path in found]
        path = f'{before}{HOLE}{after}'
        rows.append(_row(path, entries[found[0]], counts))
        left -= set(found)
  rows += [_row(path, entries[path], entries[path].size) for path in left]
  return sorted(rows, key=lambda row: row[0])


def unfold(rows: Sequence[Any]) -> Iterable[Any]:
  """Yields rows with one count each, in the order of their paths.

  Args:
    rows: as `fold` returns them, from a file; what is wrong in other ways is
      left to whoever looks at single rows.

  Yields:
    [path, dtype, shape, count].

  Raises:
    DeltaFileError: if rows are not sorted by path, have no hole for their
      counts, or stand for too much.

  Example:
    >>> [row[0] for row in unfold([['layers_{}', 'bool', [2], [0, 1]]])]
    ['layers_0', 'layers_1']
  """
  stacked = [row for row in rows if _is_stacked(row)]
  if not stacked:
    return rows
  for before, after in itertools.pairwise(row for row in rows if _named(row)):
    if before[0] >= after[0]:
      raise DeltaFileError(
        f'parameter {after[0]!r:.80} follows {before[0]!r:.80}: paths must be '
        'sorted, each once'
      )
  paths = sum(len(row[3]) for row in stacked)
  characters = sum(len(row[3]) * (len(row[0]) + 5) for row in stacked)
  if paths > _MOST_PATHS or characters > _MOST_CHARACTERS:
    raise DeltaFileError(
      f'table of parameters stands for {paths} paths of {characters} '
      f'characters; at most {_MOST_PATHS} and {_MOST_CHARACTERS} can be read'
    )
  single = [row for row in rows if not _is_stacked(row)]
  for path, dtype, shape, counts in stacked:
    if path.count(HOLE) != 1:
      raise DeltaFileError(f'{path!r:.80} has several counts and not one hole')
    before, after = path.split(HOLE)
    single += [
      [f'{before}{i}{after}', dtype, shape, count]
      for i, count in enumerate(counts)
    ]
  if not all(_named(row) for row in single):
    return single  # refused row by row
  return sorted(single, key=lambda row: row[0])


def _row(path: str, entry: DeltaEntry, counts: Any) -> list[Any]:
  return [path, entry.dtype.name, list(entry.shape), counts]


def _may_fold(entries: Mapping[str, DeltaEntry]) -> bool:
  """Returns whether whatever is folded can be read back."""
  return (
    not any(HOLE in path for path in entries)
    and len(entries) <= _MOST_PATHS
    and sum(len(path) + 7 for path in entries) <= _MOST_CHARACTERS
  )


def _groups(
  left: Iterable[str], entries: Mapping[str, DeltaEntry], which: int
) -> dict[tuple[Any, ...], set[str]]:
  """Returns paths that differ in one number, by what they have in common."""
  groups: dict[tuple[Any, ...], set[str]] = {}
  for path in left:
    numbers = list(re.finditer('[0-9]+', path))
    if which < len(numbers):
      at = numbers[which]
      entry = entries[path]
      kind = path[: at.start()], path[at.end() :], entry.dtype, entry.shape
      groups.setdefault(kind, set()).add(path)
  return groups


def _named(row: Any) -> bool:
  return isinstance(row, list) and len(row) == 4 and isinstance(row[0], str)


def _is_stacked(row: Any) -> bool:
  return _named(row) and isinstance(row[3], list)
