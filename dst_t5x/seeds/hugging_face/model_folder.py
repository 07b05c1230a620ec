"""Reads T5 1.1, FLAN-T5 and mT5 in Hugging Face's layout.

That is a folder with config.json and safetensors files of weights.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from dst_t5x.arrays import fingerprints
from dst_t5x.seeds import (
  folders,
  layouts,
  safetensors_parts,
  tensor_reading,
)
from dst_t5x.seeds.errors import SeedError
from dst_t5x.seeds.hugging_face import model_config, tied_weights, weight_files
from dst_t5x.seeds.hugging_face import tensor_names as names_of

CONFIG = 'config.json'


@dataclasses.dataclass(frozen=True)
class HuggingFaceSource:
  """An opened Hugging Face checkpoint; see `arrays.source.Source`.

  Attributes:
    files: path of the file that holds a tensor, by Hugging Face's name.
    counterparts: what each of our tensors is called and how it is stored there,
      by our path.
    tensors: shape and dtype by our path.
  """

  location: str
  files: Mapping[str, str]
  counterparts: Mapping[str, names_of.Counterpart]
  tensors: Mapping[str, jax.ShapeDtypeStruct]
  config: dict[str, Any] | None
  step: int | None = None
  layout: str = layouts.HUGGING_FACE.name

  def specs(self) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shape and dtype of every parameter."""
    return dict(self.tensors)

  def read(
    self,
    shardings: Mapping[str, jax.sharding.Sharding] | None = None,
    dtype: Any = None,
    names: Collection[str] | None = None,
  ) -> dict[str, Any]:
    """Reads parameters; see `arrays.source.Source`."""
    with self._reader() as read_part:
      return tensor_reading.read(
        self.tensors,
        read_part,
        location=self.location,
        shardings=shardings,
        dtype=dtype,
        names=names,
      )

  def digests(
    self, names: Collection[str] | None = None
  ) -> dict[str, fingerprints.TensorDigest]:
    """Hashes parameters one by one; see `arrays.source.Source`."""
    with self._reader() as read_part:
      return tensor_reading.digests(
        self.tensors, read_part, location=self.location, names=names
      )

  @contextlib.contextmanager
  def _reader(self) -> Iterator[tensor_reading.ReadPart]:
    with contextlib.ExitStack() as stack:
      handles: dict[str, Any] = {}

      def read_part(path: str, at: tensor_reading.Index) -> np.ndarray:
        name, _, transposed = self.counterparts[path]
        file = self.files[name]
        if file not in handles:
          handle = safetensors_parts.opened(file, self.location)
          handles[file] = stack.enter_context(handle)
        stored_at = at[::-1] if transposed else at
        part = safetensors_parts.part(
          handles[file], name, stored_at, self.location
        )
        return np.ascontiguousarray(part.T) if transposed else part

      yield read_part


def is_here(location: str) -> bool:
  """Returns whether a place looks like a Hugging Face T5.

  Args:
    location: path or URL.

  Returns:
    Whether it is a folder with config.json, or a safetensors file with Hugging
    Face's names of T5's tensors.

  Example:
    >>> is_here('no/such/folder')
    False
  """
  if folders.read_file(location, CONFIG) is not None:
    return True
  if folders.is_remote(location) or not os.path.isfile(location):
    return False
  try:
    with safetensors_parts.opened(location, location) as handle:
      if (handle.metadata() or {}).get('format', '').startswith('dst_t5x'):
        return False
      return has_names_of_t5(handle.keys())
  except SeedError:
    return False


def has_names_of_t5(names: Iterable[str]) -> bool:
  """Returns whether the names of tensors look like those of Hugging Face's T5.

  Args:
    names: names of the tensors in a file.

  Returns:
    Whether they do.

  Example:
    >>> has_names_of_t5(['shared.weight'])
    True
    >>> has_names_of_t5(['token_embedder/embedding'])
    False
  """
  return any(
    name in (names_of.EMBEDDING, *names_of.COPIES) or '.block.0.' in name
    for name in names
  )


def open_source(location: str) -> HuggingFaceSource:
  """Opens a Hugging Face checkpoint.

  Args:
    location: path of the folder, or of one safetensors file in it, which then
      has to hold all weights.

  Returns:
    The opened seed.

  Raises:
    SeedError: if something is missing or damaged, or it is another network.

  Example:
    >>> open_source('no/such/folder')
    Traceback (most recent call last):
    ...
    dst_t5x.seeds.errors.SeedError: no/such/folder lacks \
    config.json, without which Hugging Face weights do not say what network \
    they belong to
  """
  if folders.is_remote(location):
    raise SeedError(
      f'{location} is a Hugging Face checkpoint on a remote path; copy it to '
      'this machine first'
    )
  folder, file = location, None
  if os.path.isfile(location):
    folder, file = os.path.dirname(location) or '.', location
  config = _config(folder)
  files, stored = weight_files.tables(folder, file)
  stored = {k: v for k, v in stored.items() if k not in names_of.IGNORED}
  alias = tied_weights.embedding(files, stored, location)
  head = tied_weights.head(config, files, stored, alias, location)
  network = model_config.to_network(config, tied=head is None, location=folder)
  counterparts = dict(names_of.table(network))
  counterparts[names_of.EMBEDDING_PATH] = counterparts[
    names_of.EMBEDDING_PATH
  ]._replace(name=alias)
  if head is not None:
    counterparts[names_of.HEAD_PATH] = counterparts[
      names_of.HEAD_PATH
    ]._replace(name=head)
  tensors = _specs(counterparts, stored, location)
  return HuggingFaceSource(
    location, files, counterparts, tensors, network.to_dict()
  )


def _config(folder: str) -> Mapping[str, Any]:
  path = pathlib.Path(folder, CONFIG)
  try:
    config = json.loads(path.read_bytes())
  except FileNotFoundError as error:
    raise SeedError(
      f'{folder} lacks {CONFIG}, without which Hugging Face weights do not say '
      'what network they belong to'
    ) from error
  except (ValueError, RecursionError, OSError) as error:
    raise SeedError(f'{path} cannot be read: {error}') from error
  if not isinstance(config, dict):
    raise SeedError(f'{path} holds no JSON object')
  return config


def _specs(
  counterparts: Mapping[str, names_of.Counterpart],
  stored: Mapping[str, jax.ShapeDtypeStruct],
  location: str,
) -> dict[str, jax.ShapeDtypeStruct]:
  wanted = {counterpart.name for counterpart in counterparts.values()}
  extra = sorted(set(stored) - wanted)
  missing = sorted(wanted - set(stored))
  if missing or extra:
    raise SeedError(
      f'the seed {location} does not fit its config.json'
      + (f'; missing: {_listed(missing)}' if missing else '')
      + (f'; not in the network: {_listed(extra)}' if extra else '')
    )
  specs = {}
  for path, (name, shape, transposed) in counterparts.items():
    expected = shape[::-1] if transposed else shape
    if stored[name].shape != expected:
      raise SeedError(
        f'the seed {location} does not fit its config.json: {name!r} has shape '
        f'{stored[name].shape} instead of {expected}'
      )
    specs[path] = jax.ShapeDtypeStruct(shape, stored[name].dtype)
  return specs


def _listed(names: list[str]) -> str:
  more = f' and {len(names) - 5} more' if len(names) > 5 else ''
  return ', '.join(map(repr, names[:5])) + more
