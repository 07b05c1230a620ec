"""Batches that do not depend on how many processes read them.

T5X lets every process read its own part of the data, so another number of
processes sees other batches. To compare runs on different meshes, or to move a
run from one to another, every process can instead read all of it and keep its
rows of each batch. That costs every process the work of all.
"""

from typing import Any

import tensorflow as tf
from t5x import utils  # type: ignore


def get_dataset(
  cfg: utils.DatasetConfig,
  shard_id: int,
  num_shards: int,
  feature_converter_cls: Any,
  num_epochs: int | None = None,
  continue_from_last_checkpoint: bool = False,
  *,
  same_batches: bool = False,
) -> Any:
  """Returns this process's rows of the batches; bind it as `get_dataset_fn`.

  Args:
    cfg: of the dataset.
    shard_id: which rows, 0 to num_shards - 1.
    num_shards: of the data (count).
    feature_converter_cls: of the model.
    num_epochs: None for no end.
    continue_from_last_checkpoint: must be False, as in `utils.get_dataset`.
    same_batches: whether the batches are those that one process would see.

  Returns:
    Batches of `cfg.batch_size / num_shards` rows.

  Raises:
    ValueError: if the batch cannot be split, or has no fixed order.
  """
  if not same_batches or num_shards == 1:
    return utils.get_dataset(
      cfg,
      shard_id,
      num_shards,
      feature_converter_cls,
      num_epochs,
      continue_from_last_checkpoint,
    )
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

  return whole.map(own)
