"""Tables and lengths of time as text."""

import time
from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]]) -> str:
  """Returns rows as aligned columns.

  Args:
    rows: cells, equally many in each row.

  Example:
    >>> print(columns([('mesh', '2 × 4'), ('hosts', '1')]))
    mesh   2 × 4
    hosts  1
  """
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = ('  '.join(map(str.ljust, row, widths)).rstrip() for row in rows)
  return '\n'.join(lines)


def time_left(expires: int) -> str:
  """Returns how much of a lifetime is left.

  Args:
    expires: its end (seconds since 1970).

  Returns:
    Words.
  """
  left = expires - time.time()
  return f'{span(left)} left' if left > 0 else f'overdue by {span(-left)}'


def span(seconds: float) -> str:
  """Returns a length of time in words.

  Args:
    seconds: the length.

  Example:
    >>> span(5400), span(90), span(200000)
    ('1.5 h', '2 min', '2.3 d')
  """
  if seconds < 3600:
    return f'{round(seconds / 60)} min'
  if seconds < 48 * 3600:
    return f'{seconds / 3600:.1f} h'
  return f'{seconds / 86400:.1f} d'
