"""Stacked rows: one row of the table for the same parameter of all layers.

A model repeats its layers, so the paths of most of its parameters differ in one
number only: one row `decoder/layers_{}/mlp/wo/kernel` with 24 counts says all
that 24 rows would.
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dst_t5x.delta.types import DeltaEntry, DeltaFileError

HOLE = '{}'
# The most that stacked rows, which take few bytes, may grow into.
_MOST_PATHS = 1 << 16
_MOST_CHARACTERS = 1 << 22


def fold(entries: Mapping[str, DeltaEntry]) -> list[list[Any]]:
  """Returns the rows of a table, with one row for repeated layers.

  Args:
    entries: a delta's entries by path.

  Returns:
    Rows [path, dtype, shape, count], or [path with a hole, dtype, shape,
    counts] for the paths with 0, 1, 2, … in the hole; sorted by path.

  Example:
    >>> import numpy as np
    >>> none = np.int64([]), np.float32([])
    >>> entry = DeltaEntry((3,), np.dtype('float32'), *none)
    >>> fold({'layers_0/scale': entry, 'layers_1/scale': entry, 'scale': entry})
    [['layers_{}/scale', 'float32', [3], [0, 0]], ['scale', 'float32', [3], 0]]
  """
  unfolded, rows = set(entries), []
  if not _may_fold(entries):
    unfolded, rows = set(), [_row(p, e, e.size) for p, e in entries.items()]
  # Paths are folded at their first number; the rest at their second, and so on.
  for which in itertools.count():
    groups = _groups(unfolded, entries, which)
    if not groups:
      break
    for (before, after, *_), group in groups.items():
      layers = [f'{before}{i}{after}' for i in range(len(group))]
      if len(layers) > 1 and group == set(layers):
        counts = [entries[path].size for path in layers]
        path = f'{before}{HOLE}{after}'
        rows.append(_row(path, entries[layers[0]], counts))
        unfolded -= set(layers)
  rows += [_row(path, entries[path], entries[path].size) for path in unfolded]
  return sorted(rows, key=lambda row: row[0])


def unfold(rows: Sequence[Any]) -> Iterable[Any]:
  """Yields rows with one count each, in the order of their paths.

  Args:
    rows: as `fold` returns them, but from a file, so that they may be
      anything. Only what concerns stacking is checked here; rows that are
      malformed otherwise are passed on as they are.

  Yields:
    [path, dtype, shape, count].

  Raises:
    DeltaFileError: if rows are not sorted by path, a stacked row has not
      exactly one hole, or the rows stand for too many paths.

  Example:
    >>> [row[0] for row in unfold([['layers_{}', 'bool', [2], [0, 1]]])]
    ['layers_0', 'layers_1']
  """
  stacked = [row for row in rows if _is_stacked(row)]
  if not stacked:
    return rows
  named = [row for row in rows if _has_path(row)]
  for before, after in itertools.pairwise(named):
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
  if not all(_has_path(row) for row in single):
    return single  # the caller refuses the row that has no path
  return sorted(single, key=lambda row: row[0])


def _row(path: str, entry: DeltaEntry, counts: Any) -> list[Any]:
  return [path, entry.dtype.name, list(entry.shape), counts]


def _may_fold(entries: Mapping[str, DeltaEntry]) -> bool:
  """Returns whether the rows could be read back if all entries were folded."""
  return (
    not any(HOLE in path for path in entries)
    and len(entries) <= _MOST_PATHS
    and sum(len(path) + 7 for path in entries) <= _MOST_CHARACTERS
  )


def _groups(
  unfolded: Iterable[str], entries: Mapping[str, DeltaEntry], which: int
) -> dict[tuple[Any, ...], set[str]]:
  """Returns groups of paths that differ in one number only.

  Args:
    unfolded: paths to group.
    entries: a delta's entries by path.
    which: index of the number in the path that may differ.

  Returns:
    Paths by what they have in common: the path before and after the number,
    dtype and shape.
  """
  groups: dict[tuple[Any, ...], set[str]] = {}
  for path in unfolded:
    numbers = list(re.finditer('[0-9]+', path))
    if which < len(numbers):
      number = numbers[which]
      entry = entries[path]
      before, after = path[: number.start()], path[number.end() :]
      key = before, after, entry.dtype, entry.shape
      groups.setdefault(key, set()).add(path)
  return groups


def _has_path(row: Any) -> bool:
  return isinstance(row, list) and len(row) == 4 and isinstance(row[0], str)


def _is_stacked(row: Any) -> bool:
  return _has_path(row) and isinstance(row[3], list)
