"""The input of a run: where it resumes, and which process reads what.

T5X saves a checkpoint before the first step, when it has already fetched the
first batch. A run that resumed from there would skip that batch, and would not
end as an undisturbed one does. So a run that resumes from before its first step
starts the data from the beginning.

T5X lets every process read its own part of the data, so another number of
processes sees other batches. To compare runs on different meshes, or to move a
run from one to another, every process can instead read all data and keep its
rows of each batch. That costs every process the work of all.
"""

import os
import re
from typing import Any

import tensorflow as tf
from absl import logging
from clu.data import dataset_iterator
from etils import epath
from t5x import utils  # type: ignore

_SHARDS = re.compile(r'train_ds-\d+-of-(\d+)')


class TrainIterator(dataset_iterator.TfDatasetIterator):
  """Batches of a dataset, whose position is saved and restored.

  Args:
    dataset: of batches.
    first_step: the step at which the run began, in T5X's count.
  """

  def __init__(self, dataset: tf.data.Dataset, first_step: int):
    super().__init__(dataset, checkpoint=True)
    self._first_step = first_step

  def restore(self, filename: Any) -> None:
    """Goes to a saved position, or to the beginning if no step was taken."""
    if step_of(os.fspath(filename)) == self._first_step:
      logging.info('No step was taken yet: the data starts from its beginning.')
      return
    super().restore(filename)


def step_of(filename: str) -> int | None:
  """Returns the step of the checkpoint that a file lies in.

  Args:
    filename: a path.

  Returns:
    The step; None if it lies in no checkpoint.

  Example:
    >>> step_of('run/checkpoint_1000/dataset/train_ds-000-of-001')
    1000
  """
  steps = re.findall(r'(?:^|/)checkpoint_(\d+)(?:/|$)', filename)
  return int(steps[-1]) if steps else None


def check_shards(checkpoint: str, shards: int) -> None:
  """Raises unless a checkpoint says where the input stood for these shards.

  T5X keeps one file for every process that reads data, and would look for one
  that is not there.

  Args:
    checkpoint: location of the checkpoint.
    shards: of the data in this run (count).

  Raises:
    ValueError: naming both numbers and what to do.

  Example:
    >>> check_shards('no/such/checkpoint', 2)
  """
  saved = {
    int(number)
    for name in _names(epath.Path(checkpoint) / 'dataset')
    for number in _SHARDS.findall(name)
  }
  if not saved and (epath.Path(checkpoint) / 'state').is_dir():
    raise ValueError(
      f'{checkpoint} does not say where the input stood, and SAVE_DATASET=True '
      'asks to restore it: the run that wrote it had SAVE_DATASET=False. '
      'Resume with SAVE_DATASET=False; the data then starts from its beginning '
      'while parameters, optimizer and counters go on'
    )
  if saved and saved != {shards}:
    raise ValueError(
      f'{checkpoint} says where the input stood for '
      f'{", ".join(map(str, sorted(saved)))} data shard(s), and this run has '
      f'{shards}. Resume on as many processes as wrote it; or bind '
      'SAVE_DATASET=False, and the data starts from its beginning while '
      'parameters, optimizer and counters go on'
    )


def get_dataset(
  cfg: utils.DatasetConfig,
  shard_id: int,
  num_shards: int,
  feature_converter_cls: Any,
  num_epochs: int | None = None,
  continue_from_last_checkpoint: bool = False,
  *,
  first_step: int,
  same_batches: bool = False,
) -> TrainIterator:
  """Returns this process's rows of the batches; bind it as `get_dataset_fn`.

  Args:
    cfg: of the dataset.
    shard_id: which rows, 0 to num_shards - 1.
    num_shards: of the data (count).
    feature_converter_cls: of the model.
    num_epochs: None for no end.
    continue_from_last_checkpoint: must be False, as in `utils.get_dataset`.
    first_step: the step at which the run began, in T5X's count.
    same_batches: whether the batches are those that one process would see.

  Returns:
    Batches of `cfg.batch_size / num_shards` rows.

  Raises:
    ValueError: if the batch cannot be split, or has no fixed order.
  """
  if not same_batches or num_shards == 1:
    dataset = utils.get_dataset(
      cfg,
      shard_id,
      num_shards,
      feature_converter_cls,
      num_epochs,
      continue_from_last_checkpoint,
    )
    return TrainIterator(dataset, first_step)
  if cfg.batch_size % num_shards:
    raise ValueError(
      f'BATCH_SIZE={cfg.batch_size} must be a multiple of the {num_shards} '
      'data shards'
    )
  if cfg.shuffle and cfg.seed is None:
    raise ValueError(
      'SAME_BATCHES needs an order that all processes share: set RANDOM_SEED'
    )
  whole = utils.get_dataset(
    cfg,
    0,
    1,
    feature_converter_cls,
    num_epochs,
    continue_from_last_checkpoint,
  )
  rows = cfg.batch_size // num_shards
  first = shard_id * rows

  def own(batch: Any) -> Any:
    # A fixed size, which the row count of a slice would lose.
    return tf.nest.map_structure(
      lambda x: tf.ensure_shape(x[first : first + rows], [rows, *x.shape[1:]]),
      batch,
    )

  return TrainIterator(whole.map(own), first_step)


def _names(folder: epath.Path) -> list[str]:
  """Returns the names of files in a folder and in the folders in it."""
  if not folder.is_dir():
    return []
  paths = list(folder.iterdir())
  below = [f for path in paths if path.is_dir() for f in path.iterdir()]
  return [path.name for path in (*paths, *below)]
