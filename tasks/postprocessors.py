"""Text to what metrics compare, for targets and for predictions.

seqio calls these as f(text, example=…, is_target=…), with the example's
strings as bytes. A target whose gold answer is hidden, as in SuperGLUE's test
sets, raises: scored, it would count as right wherever a prediction is invalid.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from . import end_of_document
from .preprocessors import UNKNOWN

# Of a prediction that names no class.
INVALID = -1

Example = Mapping[str, Any]

_DETERMINERS = frozenset(
  'a an few her his each every many much my our some that the their these this '
  'those which whose your'.split()
)


class NoGoldAnswerError(ValueError):
  """A target has no gold answer to be scored against: which example."""


def class_number(
  text: str,
  *,
  labels: Sequence[str],
  example: Example | None = None,
  is_target: bool = False,
) -> int:
  """Returns the number of the class that a text names.

  Args:
    text: a target or a prediction.
    labels: text of every class; anything else, another case too, is invalid.
    example: that it belongs to.
    is_target: whether it is the target.

  Returns:
    From 0, or `INVALID`.

  Raises:
    NoGoldAnswerError: if a target names no class.

  Example:
    >>> class_number('yes', labels=['no', 'yes'])
    1
    >>> class_number('YES', labels=['no', 'yes'])
    -1
  """
  if text in labels:
    return labels.index(text)
  if is_target:
    raise _no_gold_answer(text, example)
  return INVALID


def multirc(
  text: str, *, example: Example | None = None, is_target: bool = False
) -> dict[str, Any]:
  """Returns whether an answer is said to be right, with its question.

  Args:
    text: a target or a prediction.
    example: that it belongs to.
    is_target: whether it is the target.

  Returns:
    'value', 1 for 'True', 0 for 'False', else `INVALID`; for a target 'group',
    its paragraph and question.

  Raises:
    NoGoldAnswerError: if a target is neither.

  Example:
    >>> multirc('True')
    {'value': 1}
  """
  value = class_number(
    text, labels=('False', 'True'), example=example, is_target=is_target
  )
  if not is_target or example is None:
    return {'value': value}
  group = (int(example['idx/paragraph']), int(example['idx/question']))
  return {'value': value, 'group': group}


def record(
  text: str, *, example: Example | None = None, is_target: bool = False
) -> dict[str, Any]:
  """Returns an answer, or a target's every right answer with its query.

  Args:
    text: a target or a prediction.
    example: that it belongs to.
    is_target: whether it is the target.

  Returns:
    'value', a text or, for a target, texts; then also 'group'.

  Raises:
    NoGoldAnswerError: if a target has no answers.

  Example:
    >>> record('Ann')
    {'value': 'Ann'}
  """
  if not is_target or example is None:
    return {'value': text}
  group = (int(example['idx/passage']), int(example['idx/query']))
  return {'value': _texts(example, 'answers'), 'group': group}


def any_of(
  text: str,
  *,
  key: str,
  example: Example | None = None,
  is_target: bool = False,
) -> str | list[str]:
  """Returns a prediction as it is, for a target all texts that would be right.

  Args:
    text: a target or a prediction.
    key: of these texts in the example.
    example: that it belongs to.
    is_target: whether it is the target.

  Returns:
    A text, or texts.

  Raises:
    NoGoldAnswerError: if a target has none.

  Example:
    >>> example = {'answers': [b'Ann', b'Anne']}
    >>> any_of('Ann', key='answers', example=example, is_target=True)
    ['Ann', 'Anne']
  """
  if not is_target or example is None:
    return text
  return _texts(example, key)


def wsc(
  text: str, *, example: Example | None = None, is_target: bool = False
) -> int:
  """Returns whether a prediction means the noun that the row proposes.

  It does if the words of one are among those of the other, case and
  determiners aside: 'the old cat' means 'cat'. But where only one of them has
  an apostrophe, one may be what the other owns.

  Args:
    text: a target or a prediction.
    example: that it belongs to.
    is_target: whether it is the target.

  Returns:
    1 or 0; the row's label for a target; `INVALID` for an empty prediction.

  Raises:
    NoGoldAnswerError: if a target's label is hidden.

  Example:
    >>> example = {'targets_pretokenized': b'the old cat', 'label': 1}
    >>> wsc('Cat', example=example), wsc("the cat's tail", example=example)
    (1, 0)
  """
  if example is None:
    raise ValueError('wsc needs the example, which holds the proposed noun')
  if is_target:
    label = int(example['label'])
    if label not in (0, 1):
      raise _no_gold_answer(label, example)
    return label
  predicted = _without_determiners(text)
  proposed = _without_determiners(noun(example))
  if not predicted:
    return INVALID
  if ("'" in predicted) != ("'" in proposed):
    return 0
  ours, theirs = set(predicted.split(' ')), set(proposed.split(' '))
  return int(ours <= theirs or theirs <= ours)


def noun(example: Example) -> str:
  """Returns the noun that a row of WSC proposes, without an end mark.

  Args:
    example: as seqio hands it to scoring.

  Returns:
    The text.

  Example:
    >>> noun({'targets_pretokenized': b'the cat'})
    'the cat'
  """
  return end_of_document.cut(_text(example['targets_pretokenized']))


def _without_determiners(text: str) -> str:
  words = text.strip().lower().split(' ')
  return ' '.join(word for word in words if word not in _DETERMINERS)


def _text(value: Any) -> str:
  return value.decode('utf-8') if isinstance(value, bytes) else str(value)


def _texts(example: Example, key: str) -> list[str]:
  texts = [_text(value) for value in example[key]]
  if not texts:
    raise _no_gold_answer(texts, example)
  return texts


def _no_gold_answer(value: Any, example: Example | None) -> NoGoldAnswerError:
  place = {
    name: _text(found) if isinstance(found, bytes) else int(found)
    for name, found in (example or {}).items()
    if name.startswith('idx')
  }
  where = f'example {place} has' if place else 'there is'
  hidden = ', which is hidden' if value in (UNKNOWN, INVALID) else ''
  return NoGoldAnswerError(
    f'{where} no gold answer ({value!r}{hidden}), so it cannot be scored; '
    'score validation, and write predictions for a hidden test set with '
    'dst-t5x eval --submission'
  )
