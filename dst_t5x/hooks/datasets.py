"""The input of a run: where it resumes, and who reads what.

T5X saves a checkpoint before the first step, when it has already fetched the
first batch. A run that resumes from there would skip that batch, so that it
would not end as an undisturbed one does. Here such a run begins at the first.

T5X lets every process read its own part of the data, so another number of
processes sees other batches. To compare runs on different meshes, or to move a
run from one to another, every process can instead read all of it and keep its
rows of each batch. That costs every process the work of all.
"""

import os
import re
from typing import Any

import tensorflow as tf
from absl import logging
from clu.data import dataset_iterator
from t5x import utils  # type: ignore


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
    """Goes to a saved position; that of the first step is the beginning."""
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
  found = re.findall(r'(?:^|/)checkpoint_(\d+)(?:/|$)', filename)
  return int(found[-1]) if found else None


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
) -> 'TrainIterator':
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
