"""The final number of a text: what GSM8K scores.

It is the number after the last `####`; without that mark, the last number of
the text. Thousands separators, currency and percent signs, units and what
follows do not count: `#### $1,080.00 in all.` is 1080.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .postprocessors import NoGoldAnswerError

_NUMBER = re.compile(
  r"""
  (?:(?<![\w)])[-−](?=[$€£]?[.\d]))?  # a sign; in '5-3' there is none
  [$€£]?
  (?:
    \d{1,3}(?:,\d{3})+(?!\d)          # '1,080', but '1,2' are two numbers
    | \d+
    | (?=\.\d)                        # '.5'
  )
  (?:\.\d+)?
  """,
  re.VERBOSE,
)
_MARK = '####'


def final(
  text: str,
  *,
  example: Mapping[str, Any] | None = None,
  is_target: bool = False,
) -> str | None:
  """Returns the final number of a text.

  Args:
    text: a rationale with its answer.
    example: that it belongs to.
    is_target: whether it is the target.

  Returns:
    The number with digits and, where they count, sign and decimals only, so
    that equal numbers are equal texts; None if there is none.

  Raises:
    NoGoldAnswerError: if a target has no number.

  Example:
    >>> final('3 + 4 = 7, so we have #### $1,080.00 a week')
    '1080'
    >>> final('It is -2.50 degrees.'), final('I do not know.')
    ('-2.5', None)
  """
  del example
  before, mark, after = text.rpartition(_MARK)
  found = _NUMBER.findall(after)
  if mark and found:
    return _plain(found[0])
  found = _NUMBER.findall(f'{before} {after}')
  if found:
    return _plain(found[-1])
  if is_target:
    raise NoGoldAnswerError(
      f'the target {text!r} has no number, so nothing can be scored against it'
    )
  return None


def accuracy(
  targets: Sequence[str | None], predictions: Sequence[str | None]
) -> Mapping[str, float]:
  """Returns the percentage of final numbers that are right.

  Args:
    targets: of `final`.
    predictions: of `final`; None is wrong.

  Returns:
    `{'accuracy': percent}`.

  Example:
    >>> accuracy([final('#### 1,080')], [final('That is 1080 apples.')])
    {'accuracy': 100.0}
  """
  right = sum(
    t is not None and t == p for t, p in zip(targets, predictions, strict=True)
  )
  return {'accuracy': 100.0 * right / len(targets)}


def _plain(number: str) -> str:
  number = re.sub('[$€£,]', '', number)
  sign = '-' if number[0] in '-−' else ''
  whole, _, decimals = number.lstrip('-−').partition('.')
  whole, decimals = whole.lstrip('0') or '0', decimals.rstrip('0')
  digits = f'{whole}.{decimals}' if decimals else whole
  return digits if digits == '0' else sign + digits
