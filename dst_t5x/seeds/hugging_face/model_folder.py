"""Hugging Face's T5 1.1, FLAN-T5 and mT5: config.json and safetensors files."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from dst_t5x.arrays import fingerprints
from dst_t5x.seeds import folders, safetensors_parts, tensor_reading
from dst_t5x.seeds.errors import SeedError
from dst_t5x.seeds.hugging_face import model_config, tied_weights, weight_files
from dst_t5x.seeds.hugging_face import tensor_names as names_of

LAYOUT = 'hf'
CONFIG = 'config.json'


@dataclasses.dataclass(frozen=True)
class HuggingFaceSource:
  """An opened Hugging Face checkpoint; see `source.Source`.

  Attributes:
    files: by the name that the tensors have there.
    entries: name, shape and whether it is turned, by our path.
    tensors: shape and dtype by our path.
  """

  location: str
  files: Mapping[str, str]
  entries: Mapping[str, names_of.Entry]
  tensors: Mapping[str, jax.ShapeDtypeStruct]
  config: dict[str, Any] | None
  step: int | None = None
  layout: str = LAYOUT

  def specs(self) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shape and dtype of every parameter."""
    return dict(self.tensors)

  def read(
    self,
    shardings: Mapping[str, jax.sharding.Sharding] | None = None,
    dtype: Any = None,
    names: Collection[str] | None = None,
  ) -> dict[str, Any]:
    """Reads parameters; see `source.Source`."""
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
    """Hashes parameters one by one; see `source.Source`."""
    with self._reader() as read_part:
      return tensor_reading.digests(
        self.tensors, read_part, location=self.location, names=names
      )

  @contextlib.contextmanager
  def _reader(self) -> Iterator[tensor_reading.ReadPart]:
    with contextlib.ExitStack() as stack:
      handles: dict[str, Any] = {}

      def read_part(path: str, at: tensor_reading.Index) -> np.ndarray:
        name, _, turned = self.entries[path]
        file = self.files[name]
        if file not in handles:
          handle = safetensors_parts.opened(file, self.location)
          handles[file] = stack.enter_context(handle)
        where = at[::-1] if turned else at
        found = safetensors_parts.part(
          handles[file], name, where, self.location
        )
        return np.ascontiguousarray(found.T) if turned else found

      yield read_part


def is_one(names: Iterable[str]) -> bool:
  """Returns whether the tensors of a file look like Hugging Face's T5.

  Args:
    names: of the tensors.

  Returns:
    Whether they do.

  Example:
    >>> is_one(['shared.weight']), is_one(['token_embedder/embedding'])
    (True, False)
  """
  return any(
    name in (names_of.EMBEDDING, *names_of.COPIES) or '.block.0.' in name
    for name in names
  )


def open_source(folder: str, file: str | None = None) -> HuggingFaceSource:
  """Opens a Hugging Face checkpoint.

  Args:
    folder: with config.json and the weights.
    file: of the weights, if not those with the usual name.

  Returns:
    The source.

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
  if folders.is_remote(folder):
    raise SeedError(
      f'{folder} is a Hugging Face checkpoint on a remote path; copy it to '
      'this machine first'
    )
  config = _config(folder)
  files, stored = weight_files.tables(folder, file)
  location = folder if file is None else file
  stored = {k: v for k, v in stored.items() if k not in names_of.IGNORED}
  alias = tied_weights.embedding(files, stored, location)
  head = tied_weights.head(config, files, stored, alias, location)
  network = model_config.to_network(config, tied=head is None, location=folder)
  entries = dict(names_of.table(network))
  entries[names_of.EMBEDDING_PATH] = entries[names_of.EMBEDDING_PATH]._replace(
    name=alias
  )
  if head is not None:
    entries[names_of.HEAD_PATH] = entries[names_of.HEAD_PATH]._replace(
      name=head
    )
  tensors = _specs(entries, stored, location)
  return HuggingFaceSource(location, files, entries, tensors, network.to_dict())


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
  entries: Mapping[str, names_of.Entry],
  stored: Mapping[str, jax.ShapeDtypeStruct],
  location: str,
) -> dict[str, jax.ShapeDtypeStruct]:
  wanted = {entry.name for entry in entries.values()}
  extra = sorted(set(stored) - wanted)
  missing = sorted(wanted - set(stored))
  if missing or extra:
    raise SeedError(
      f'the seed {location} does not fit its config.json'
      + (f'; missing: {_some(missing)}' if missing else '')
      + (f'; not in the network: {_some(extra)}' if extra else '')
    )
  specs = {}
  for path, (name, shape, turned) in entries.items():
    found = stored[name].shape
    if found != (shape[::-1] if turned else shape):
      raise SeedError(
        f'the seed {location} does not fit its config.json: {name!r} has shape '
        f'{found} instead of {shape[::-1] if turned else shape}'
      )
    specs[path] = jax.ShapeDtypeStruct(shape, stored[name].dtype)
  return specs


def _some(names: list[str]) -> str:
  more = f' and {len(names) - 5} more' if len(names) > 5 else ''
  return ', '.join(map(repr, names[:5])) + more
