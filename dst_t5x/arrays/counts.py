"""Tells counts (whole numbers, but not bools) from other values."""

from typing import Any


def is_count(value: Any, *, least: int = 0) -> bool:
  """Returns whether a value is a whole number and large enough.

  Args:
    value: anything; only Python's own whole numbers count, bools do not.
    least: the smallest number allowed (count).

  Returns:
    Whether it is.

  Example:
    >>> is_count(3), is_count(True), is_count(2.0), is_count(0, least=1)
    (True, False, False, False)
  """
  return (
    isinstance(value, int) and not isinstance(value, bool) and value >= least
  )
