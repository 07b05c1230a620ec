"""Looks a name up in a table; one that is not there is told the nearest."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

_T = TypeVar('_T')


def look_up(kind: str, name: str, table: Mapping[str, _T]) -> _T:
  """Returns what a table has under a name.

  Args:
    kind: what the names are of, for the error.
    name: to look up.
    table: by name.

  Returns:
    The entry.

  Raises:
    ValueError: if there is none; it names the nearest and all known names.

  Example:
    >>> look_up('optimizer', 'sdg', {'sgd': 1, 'adamw': 2})
    Traceback (most recent call last):
    ValueError: unknown optimizer 'sdg'; nearest: 'sgd'; known: sgd, adamw
  """
  if name in table:
    return table[name]
  close = difflib.get_close_matches(name, table, n=1)
  raise ValueError(
    f'unknown {kind} {name!r}'
    + (f'; nearest: {close[0]!r}' if close else '')
    + f'; known: {", ".join(table)}'
  )
