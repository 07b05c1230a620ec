"""Short answers against several right ones, as SQuAD and TriviaQA score them.

Source: Rajpurkar et al., SQuAD (2016); Joshi et al., TriviaQA (2017): case,
punctuation, articles and white space do not count.
"""

import collections
import re
import string
from collections.abc import Callable, Mapping, Sequence

# TriviaQA's further marks: quotation marks, accents.
_MORE_MARKS = '‘’´`_'


def normalize_squad(text: str) -> str:
  """Returns a text as SQuAD compares it: punctuation is dropped.

  Args:
    text: an answer.

  Returns:
    The text in lower case.

  Example:
    >>> normalize_squad(' The U.S.  Army! ')
    'us army'
  """
  return _normalize(text, string.punctuation, '')


def normalize_trivia_qa(text: str) -> str:
  """Returns a text as TriviaQA compares it: punctuation becomes a space.

  Args:
    text: an answer.

  Returns:
    The text in lower case.

  Example:
    >>> normalize_trivia_qa(' The U.S.  Army! ')
    'u s army'
  """
  return _normalize(text, string.punctuation + _MORE_MARKS, ' ')


def squad(
  targets: Sequence[Sequence[str]], predictions: Sequence[str]
) -> Mapping[str, float]:
  """Returns exact match and word F1, each against the best right answer.

  Args:
    targets: the right answers of every question.
    predictions: texts, as many.

  Returns:
    `{'em': percent, 'f1': percent}`.

  Example:
    >>> squad([['a cat', 'cats']], ['Cat'])
    {'em': 100.0, 'f1': 100.0}
  """
  return _scores(targets, predictions, normalize_squad)


def trivia_qa(
  targets: Sequence[Sequence[str]], predictions: Sequence[str]
) -> Mapping[str, float]:
  """Returns exact match and word F1, each against the best alias.

  Args:
    targets: the aliases of every answer.
    predictions: texts, as many.

  Returns:
    `{'em': percent, 'f1': percent}`; the paper reports the first.

  Example:
    >>> trivia_qa([['Sinclair Lewis']], ['sinclair lewis.'])
    {'em': 100.0, 'f1': 100.0}
  """
  return _scores(targets, predictions, normalize_trivia_qa)


def _normalize(text: str, marks: str, replacement: str) -> str:
  text = text.lower().translate({ord(mark): replacement for mark in marks})
  return ' '.join(re.sub(r'\b(a|an|the)\b', ' ', text).split())


def _scores(
  targets: Sequence[Sequence[str]],
  predictions: Sequence[str],
  normalize: Callable[[str], str],
) -> Mapping[str, float]:
  exact = f1 = 0.0
  for target, prediction in zip(targets, predictions, strict=True):
    found = normalize(prediction)
    right = [normalize(text) for text in target]
    exact += found in right
    f1 += max(_word_f1(text, found) for text in right)
  count = len(targets)
  return {'em': 100.0 * exact / count, 'f1': 100.0 * f1 / count}


def _word_f1(target: str, prediction: str) -> float:
  ours, theirs = prediction.split(), target.split()
  shared = collections.Counter(ours) & collections.Counter(theirs)
  same = sum(shared.values())
  # 2PR / (P + R), of precision and recall over words.
  return 2.0 * same / (len(ours) + len(theirs)) if same else 0.0
