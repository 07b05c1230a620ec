"""Keeping the best checkpoints, by a metric of T5X's or seqio's."""

import functools
from typing import Any

from t5x import checkpoints  # type: ignore


def checkpointer(metric: str | None, mode: str = 'max') -> Any:
  """Returns what says to T5X's checkpoint manager which checkpoints to keep.

  T5X's Orbax manager reads the metric's name from a partially bound
  `SaveBestCheckpointer`, and from nothing else. It keeps the best checkpoints,
  and those without a value, such as the one before the first step. A resume
  goes on from the newest that is left.

  Args:
    metric: folder of the event files and tag, as
      'inference_eval/number_words/eval/exact_match'; None keeps the newest.
    mode: 'max' or 'min'.

  Returns:
    For `SaveCheckpointConfig.checkpointer_cls`.

  Raises:
    ValueError: if the metric's name or the mode cannot be right.
  """
  if metric is None:
    return checkpoints.Checkpointer
  if '/' not in metric:
    raise ValueError(
      f'BEST_METRIC={metric!r} must be a folder in MODEL_DIR and a tag, as '
      "'train/loss'"
    )
  if mode not in ('max', 'min'):
    raise ValueError(f"BEST_MODE={mode!r} must be 'max' or 'min'")
  return functools.partial(
    checkpoints.SaveBestCheckpointer,
    metric_name_to_monitor=metric,
    metric_mode=mode,
  )
