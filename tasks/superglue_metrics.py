"""SuperGLUE's metrics other than accuracy, in percent.

They have T5's names, so that results can be compared at a glance. F1 is
scikit-learn's.

Source: Wang et al., SuperGLUE (2019), section 3.2; Khashabi et al., MultiRC
(2018): F1a and exact match; Zhang et al., ReCoRD (2018).
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from . import answers

# What the postprocessors `multirc` and `record` return, for all examples.
Grouped = Sequence[Mapping[str, Any]]


def macro_f1_of_3(
  targets: Sequence[int], predictions: Sequence[int]
) -> Mapping[str, float]:
  """Returns the mean of the F1 of three classes, each against the rest (CB).

  Args:
    targets: class numbers 0..2.
    predictions: class numbers; any other number is wrong and counts for no
      class.

  Returns:
    `{'mean_3class_f1': percent}`; a class that is neither among the targets nor
    among the predictions has F1 0.

  Example:
    >>> macro_f1_of_3([0, 1, 2], [0, 1, 2])
    {'mean_3class_f1': 100.0}
  """
  score = _f1(targets, predictions, labels=range(3), average='macro')
  return {'mean_3class_f1': 100.0 * score}


def multirc_f1_over_all_answers(
  targets: Grouped, predictions: Grouped
) -> Mapping[str, float]:
  """Returns F1 of 'this answer is right', over the answers to all questions.

  Args:
    targets: each with 'value', 0 or 1.
    predictions: each with 'value'; anything but 0 and 1 is wrong.

  Returns:
    `{'f1': percent}`.

  Example:
    >>> multirc_f1_over_all_answers(
    ...   [{'value': 1}, {'value': 0}], [{'value': 1}, {'value': -1}]
    ... )['f1'].__round__(4)
    66.6667
  """
  truth = np.array([target['value'] for target in targets])
  predicted = np.array([prediction['value'] for prediction in predictions])
  predicted = np.where(np.isin(predicted, (0, 1)), predicted, 1 - truth)
  return {'f1': 100.0 * _f1(truth, predicted)}


def multirc_exact_match(
  targets: Grouped, predictions: Grouped
) -> Mapping[str, float]:
  """Returns the percentage of questions whose answers are all judged rightly.

  Args:
    targets: each with 'value', 0 or 1, and 'group', its question.
    predictions: each with 'value'.

  Returns:
    `{'exact_match': percent}`.

  Example:
    >>> multirc_exact_match(
    ...   [{'value': 1, 'group': 'a'}, {'value': 0, 'group': 'a'}],
    ...   [{'value': 1}, {'value': 1}],
    ... )
    {'exact_match': 0.0}
  """
  right: dict[Hashable, bool] = {}
  for target, prediction in zip(targets, predictions, strict=True):
    group = target['group']
    same = target['value'] == prediction['value']
    right[group] = right.get(group, True) and same
  return {'exact_match': 100.0 * sum(right.values()) / len(right)}


def record(targets: Grouped, predictions: Grouped) -> Mapping[str, float]:
  """Returns exact match and word F1 of queries, against the best right answer.

  A query with several right answers makes that many examples with the same
  input, of which only the first counts. Texts are normalized as in SQuAD.

  Args:
    targets: each with 'value', the right answers, and 'group', its query.
    predictions: each with 'value', a text.

  Returns:
    `{'em': percent, 'f1': percent}`.

  Example:
    >>> record(
    ...   [{'value': ['Ann Lee'], 'group': 1}], [{'value': 'the Ann'}]
    ... )['em']
    0.0
  """
  by_query: dict[Hashable, tuple[Sequence[str], str]] = {}
  for target, prediction in zip(targets, predictions, strict=True):
    by_query.setdefault(target['group'], (target['value'], prediction['value']))
  return answers.squad(*zip(*by_query.values(), strict=True))


def _f1(truth: Any, predicted: Any, **settings: Any) -> float:
  import sklearn.metrics

  # F1 is 0, as in T5, and without a warning, for a class that occurs nowhere.
  settings['zero_division'] = 0
  return float(sklearn.metrics.f1_score(truth, predicted, **settings))
