"""Keeping the best checkpoints, by a metric of T5X's or seqio's."""

import functools
from typing import Any

import jax
from absl import logging
from t5x import checkpoints  # type: ignore
from tensorboard.backend.event_processing import (  # type: ignore
  directory_watcher,
  event_file_loader,
  io_wrapper,
)

from dst_t5x.arrays import known_names


def checkpointer(metric: str | None, mode: str = 'max') -> Any:
  """Returns what says to T5X's checkpoint manager which checkpoints to keep.

  T5X's Orbax manager reads the metric's name from a partially bound
  `SaveBestCheckpointer`, and from nothing else. It decides at each save, the
  new checkpoint included, and keeps the best ones and all those that have no
  value by then: the one before the first step always, and the newest if it is
  evaluated after it is saved. A resume goes on from the newest that is left.

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


def monitored(checkpointer_cls: Any) -> str | None:
  """Returns the metric by which T5X keeps checkpoints, as its manager asks it.

  Args:
    checkpointer_cls: of T5X's `SaveCheckpointConfig`.

  Returns:
    The metric; None where the newest are kept.

  Example:
    >>> monitored(checkpointer('train/loss', 'min')), monitored(None)
    ('train/loss', None)
  """
  options = getattr(checkpointer_cls, 'keywords', {})
  return options.get('metric_name_to_monitor')


def warn_if_unscored(model_dir: str, metric: str) -> None:
  """Warns if a run has checkpoints, and none of them a value of its metric.

  The first checkpoint never has one, and the second has one at the next save.

  Args:
    model_dir: where the run keeps its checkpoints and event files.
    metric: folder of the event files and tag.
  """
  steps = checkpoints.all_steps(model_dir)
  if jax.process_index() or len(steps) < 2:
    return
  if checkpoints.populate_metrics_for_steps(model_dir, metric, steps):
    return
  tags = written_tags(model_dir)
  logging.warning(
    'None of the %d checkpoints in %s has a value of BEST_METRIC=%r, so T5X '
    'keeps them all. Of the %d metrics written so far, these are the most '
    'similar: %s',
    len(steps),
    model_dir,
    metric,
    len(tags),
    ', '.join(known_names.nearest(metric, tags, count=5)) or 'none',
  )


def written_tags(model_dir: str) -> list[str]:
  """Returns what BEST_METRIC could name.

  Args:
    model_dir: of a run, with event files in its folders.

  Returns:
    Folders of event files with the tags in them, such as 'train/loss'.
  """
  tags = set()
  for folder in io_wrapper.GetLogdirSubdirectories(model_dir):
    name = folder.removeprefix(model_dir.rstrip('/')).strip('/')
    events = directory_watcher.DirectoryWatcher(
      folder,
      event_file_loader.EventFileLoader,
      io_wrapper.IsTensorFlowEventsFile,
    ).Load()
    for event in events:
      tags |= {f'{name}/{value.tag}' for value in event.summary.value}
  return sorted(tag for tag in tags if not tag.startswith('/'))
