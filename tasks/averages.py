"""One score for several tasks: their average, and published averages.

The paper averages over SuperGLUE's eight tasks, "averaging scores of tasks with
multiple scores first" (DST, appendix G): F1 and accuracy for CB, F1 over all
answers and exact match for MultiRC, F1 and exact match for ReCoRD. Its table 4
says neither on which split nor for how many steps; so its averages are only
shown beside ours, and nothing is judged by them.
"""

from collections.abc import Mapping
from typing import NamedTuple

# Task → metric → percent.
Scores = Mapping[str, Mapping[str, float]]

SUPER_GLUE = (
  'super_glue_boolq_v102',
  'super_glue_cb_v102',
  'super_glue_copa_v102',
  'super_glue_multirc_v102',
  'super_glue_record_v102',
  'super_glue_rte_v102',
  'super_glue_wic_v102',
  'super_glue_wsc_v102_simple_eval',
)

# DST, table 4: average scores of fully fine-tuned T5, in percent.
TABLE_4: Mapping[str, float] = {
  'T5-Small': 86.3,
  'T5-Base': 88.5,
  'T5-Large': 89.9,
  'T5-XL': 91.6,
  'T5-XXL': 92.3,
}


class Average(NamedTuple):
  """A mean over tasks.

  Attributes:
    value: mean of the tasks' scores, each the mean of the task's own metrics
      (percent).
    tasks: number of tasks that have a score (count).
    all_tasks: number of tasks that the benchmark has (count).
  """

  value: float
  tasks: int
  all_tasks: int


def average(scores: Scores) -> Average | None:
  """Returns the average over tasks, None for a single one.

  Args:
    scores: task → metric → percent.

  Returns:
    The average over SuperGLUE's eight tasks if any of them was scored, without
    those for training or diagnosis only; otherwise over all tasks.

  Example:
    >>> average({
    ...   'super_glue_cb_v102': {'mean_3class_f1': 80.0, 'accuracy': 90.0},
    ...   'super_glue_rte_v102': {'accuracy': 75.0},
    ...   'dpr_v001_simple': {'accuracy': 0.0},
    ... })
    Average(value=80.0, tasks=2, all_tasks=8)
  """
  super_glue = [name for name in SUPER_GLUE if name in scores]
  names = super_glue or list(scores)
  if len(names) < 2 and not super_glue:
    return None
  means = [sum(scores[n].values()) / len(scores[n]) for n in names]
  all_tasks = len(SUPER_GLUE) if super_glue else len(names)
  return Average(sum(means) / len(means), len(means), all_tasks)


def published(scores: Scores) -> Mapping[str, float]:
  """Returns the published averages for the tasks that were scored.

  Args:
    scores: task → metric → percent.

  Returns:
    Model → percent; empty if nothing is published for these tasks.

  Example:
    >>> published({'number_words': {'exact_match': 50.0}})
    {}
  """
  return TABLE_4 if any(name in SUPER_GLUE for name in scores) else {}
