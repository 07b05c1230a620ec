"""A prepared TFDS data set as seqio's data source, which downloads nothing.

seqio's own source would download a missing data set, on every machine of a job
at once, or try to for minutes where there is no network. This one says what is
missing and how to get it.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import seqio
import tensorflow as tf
from tensorflow_datasets.core.utils import file_utils


class MissingDatasetError(ValueError):
  """A TFDS data set is missing, or a split of it; the message says where."""


class TfdsSource(seqio.TfdsDataSource):
  """A TFDS data set that was downloaded and prepared before.

  It is looked for in the directory given by `--tfds_data_dir` (T5X) or
  `seqio.set_tfds_data_dir_override`, otherwise in TFDS's own directory, which
  the environment variable TFDS_DATA_DIR names.
  """

  def __init__(
    self, tfds_name: str, splits: Iterable[str] | Mapping[str, str]
  ) -> None:
    """Names a data set; nothing is read yet.

    Args:
      tfds_name: name with configuration and version, such as
        'super_glue/rte:1.0.2'.
      splits: names of TFDS splits; or a mapping from the names that the task
        uses to TFDS splits or slices, such as 'train[:90%]'.

    Example:
      >>> TfdsSource('super_glue/rte:1.0.2', ['train']).splits
      ('train',)
    """
    names = splits if isinstance(splits, Mapping) else {s: s for s in splits}
    super().__init__(tfds_name, splits=dict(names))
    self._tfds_splits = dict(names)
    self._tfds_name = tfds_name

  def get_dataset(
    self, split: str | None = None, *args: Any, **kwargs: Any
  ) -> tf.data.Dataset:
    """Returns the rows of a split.

    Raises:
      MissingDatasetError: if the data set or the split is missing.
    """
    self._check(split or 'train')
    return super().get_dataset(split, *args, **kwargs)

  def num_input_examples(self, split: str) -> int | None:
    """Returns the number of rows of a split (count).

    Raises:
      MissingDatasetError: if the data set or the split is missing.
    """
    self._check(split)
    return super().num_input_examples(split)

  # seqio's own method has another type, because a cache is wrapped around it.
  def list_shards(self, split: str) -> Any:  # pyright: ignore
    """Returns the files of a split; T5X asks for them before anything else.

    Raises:
      MissingDatasetError: if the data set or the split is missing.
    """
    self._check(split)
    return super().list_shards(split)

  def _check(self, split: str) -> None:
    folders = file_utils.list_data_dirs(self.tfds_dataset.data_dir)
    path = self._tfds_name.replace(':', '/')
    if not any(
      tf.io.gfile.exists(os.path.join(folder, path, 'dataset_info.json'))
      for folder in folders
    ):
      raise MissingDatasetError(
        f'the TFDS dataset {self._tfds_name!r} is not in '
        f'{" or ".join(map(str, folders))}. Prepare it where there is a '
        f'network (tfds.load({self._tfds_name!r}, data_dir=DIR) downloads it) '
        'and name DIR by --tfds_data_dir, seqio.set_tfds_data_dir_override or '
        'the environment variable TFDS_DATA_DIR'
      )
    if split not in self._tfds_splits:
      raise MissingDatasetError(
        f'no split {split!r} of the TFDS dataset {self._tfds_name!r} is used '
        f'here; there are: {", ".join(self._tfds_splits)}'
      )
    # A slice such as train[:90%] is one of the split before the bracket.
    tfds_split = self._tfds_splits[split].partition('[')[0]
    prepared_splits = self.tfds_dataset.info.splits
    if tfds_split not in prepared_splits:
      raise MissingDatasetError(
        f'the TFDS dataset {self._tfds_name!r} in '
        f'{self.tfds_dataset.builder.data_dir} has no split {tfds_split!r}; it '
        f'has: {", ".join(prepared_splits)}'
      )
