"""A TFDS dataset on this machine as seqio's data source; nothing is downloaded.

seqio's own source would download what is missing, on every machine of a job at
once, or try for minutes where there is no network. This one says what is
missing and how to get it.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import seqio
import tensorflow as tf
from tensorflow_datasets.core.utils import file_utils


class MissingDatasetError(ValueError):
  """A TFDS dataset, or a split of it, is not there: where it was looked for."""


class TfdsSource(seqio.TfdsDataSource):
  """A prepared TFDS dataset.

  It is looked for in the directory of `--tfds_data_dir` (T5X) or
  `seqio.set_tfds_data_dir_override`, else in TFDS's own, which the environment
  variable TFDS_DATA_DIR names.
  """

  def __init__(
    self, tfds_name: str, splits: Iterable[str] | Mapping[str, str]
  ) -> None:
    """Names a dataset; nothing is read yet.

    Args:
      tfds_name: with configuration and version, such as
        'super_glue/rte:1.0.2'.
      splits: names, or names with the TFDS split or slice behind each.

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
      MissingDatasetError: if dataset or split are not there.
    """
    self._check(split or 'train')
    return super().get_dataset(split, *args, **kwargs)

  def num_input_examples(self, split: str) -> int | None:
    """Returns the number of rows of a split (count).

    Raises:
      MissingDatasetError: if dataset or split are not there.
    """
    self._check(split)
    return super().num_input_examples(split)

  # seqio's own is wrapped in a cache, which is another type.
  def list_shards(self, split: str) -> Any:  # pyright: ignore
    """Returns the files of a split, which T5X asks for first.

    Raises:
      MissingDatasetError: if dataset or split are not there.
    """
    self._check(split)
    return super().list_shards(split)

  def _check(self, split: str) -> None:
    places = file_utils.list_data_dirs(self.tfds_dataset.data_dir)
    path = self._tfds_name.replace(':', '/')
    if not any(
      tf.io.gfile.exists(os.path.join(place, path, 'dataset_info.json'))
      for place in places
    ):
      raise MissingDatasetError(
        f'the TFDS dataset {self._tfds_name!r} is not in '
        f'{" or ".join(map(str, places))}. Prepare it where there is a network '
        f'(tfds.load({self._tfds_name!r}, data_dir=DIR) downloads it) and name '
        'DIR by --tfds_data_dir, seqio.set_tfds_data_dir_override or the '
        'environment variable TFDS_DATA_DIR'
      )
    if split not in self._tfds_splits:
      raise MissingDatasetError(
        f'no split {split!r} of the TFDS dataset {self._tfds_name!r} is used '
        f'here; there are: {", ".join(self._tfds_splits)}'
      )
    # A slice, such as train[:90%], is of the split before the bracket.
    wanted = self._tfds_splits[split].partition('[')[0]
    there = self.tfds_dataset.info.splits
    if wanted not in there:
      raise MissingDatasetError(
        f'the TFDS dataset {self._tfds_name!r} in '
        f'{self.tfds_dataset.builder.data_dir} has no split {wanted!r}; it '
        f'has: {", ".join(there)}'
      )
