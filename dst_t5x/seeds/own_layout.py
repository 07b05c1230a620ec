"""Our own layout: one safetensors file, a tensor for every parameter.

Metadata: `format` = `dst_t5x.seed`, `version` = `1`, `fingerprint` of the
parameters, `config` (JSON) if the network is known, `step` if one is known.
"""

import dataclasses
import json
import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax

from dst_t5x.arrays import fingerprints, paths, safetensors_file
from dst_t5x.seeds import own_file, safetensors_parts, targets, tensor_reading
from dst_t5x.seeds.errors import SeedError

LAYOUT = 'dst_t5x'


@dataclasses.dataclass(frozen=True)
class OwnSource:
  """An opened file of our own; see `source.Source`.

  Attributes:
    file: where it lies; differs from the location for a bundled seed.
    fingerprint: that it was written with.
  """

  location: str
  file: str
  tensors: Mapping[str, jax.ShapeDtypeStruct]
  fingerprint: str | None
  config: dict[str, Any] | None
  step: int | None
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
    """Reads parameters; see `source.Source`.

    The fingerprint is not checked, as a part of the file does not tell it;
    `seeds.read` does check it.
    """
    with safetensors_parts.opened(self.file, self.location) as handle:
      return tensor_reading.read(
        self.tensors,
        lambda name, at: safetensors_parts.part(
          handle, name, at, self.location
        ),
        location=self.location,
        shardings=shardings,
        dtype=dtype,
        names=names,
      )

  def digests(
    self, names: Collection[str] | None = None
  ) -> dict[str, fingerprints.TensorDigest]:
    """Hashes parameters one by one; see `source.Source`."""
    with safetensors_parts.opened(self.file, self.location) as handle:
      return tensor_reading.digests(
        self.tensors,
        lambda name, at: safetensors_parts.part(
          handle, name, at, self.location
        ),
        location=self.location,
        names=names,
      )


def open_source(file: str, location: str | None = None) -> OwnSource:
  """Opens a file of our own.

  Args:
    file: the file.
    location: what the user called it, if not that.

  Returns:
    The source.

  Raises:
    SeedError: if it is none, or damaged.

  Example:
    >>> open_source('no/such/seed.safetensors')
    Traceback (most recent call last):
    ...
    dst_t5x.seeds.errors.SeedError: cannot read the seed: \
    no/such/seed.safetensors: no such file
  """
  location = location or file
  with safetensors_parts.opened(file, location) as handle:
    metadata = handle.metadata() or {}
    _check_metadata(metadata, location)
    tensors = safetensors_parts.specs(handle, location)
  try:
    paths.unflatten(tensors)
    config = json.loads(metadata['config']) if 'config' in metadata else None
    step = int(metadata['step']) if 'step' in metadata else None
  except (ValueError, RecursionError) as error:
    raise SeedError(f'the seed {location} is damaged: {error}') from error
  fingerprint = metadata.get('fingerprint')
  return OwnSource(location, file, tensors, fingerprint, config, step)


def write(
  params: Mapping[str, Any],
  path: str | os.PathLike[str],
  *,
  step: int | None = None,
  config: Mapping[str, Any] | None = None,
  overwrite: bool = False,
) -> str:
  """Writes a seed, all of it or nothing.

  The same content always gives the same bytes.

  Args:
    params: nested dict of NumPy or JAX arrays.
    path: the file, ending in .safetensors.
    step: of the checkpoint, if one is known.
    config: the network's configuration (JSON types), or None.
    overwrite: whether to replace what is there.

  Returns:
    Path of the file.

  Raises:
    SeedError: if the name has another ending, something is there already, or
      something cannot be stored.
    OSError: if the file cannot be written; what was there is still there.

  Example:
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as d:
    ...   file = os.path.join(d, 'a.safetensors')
    ...   open_source(write({'scale': np.ones(2)}, file, step=7)).step
    7
  """
  location = own_file.check_name(path)
  if not overwrite:
    targets.local(path)
  try:
    digests = {
      name: fingerprints.digest(leaf, name)
      for name, leaf in paths.flatten(params).items()
    }
    metadata = own_file.describe(fingerprints.combine(digests), step, config)
    flat = paths.flatten(params)
    safetensors_file.write(
      path,
      own_file.tensors(flat, lambda name: _chunks(flat[name], name)),
      metadata,
    )
  except SeedError:
    raise
  except (TypeError, ValueError) as error:
    raise SeedError(f'{location}: cannot be written: {error}') from error
  return location


def _check_metadata(metadata: Mapping[str, str], location: str) -> None:
  found = metadata.get('format')
  if found == 'dst_t5x.delta':
    raise SeedError(
      f'{location} is a delta, not a seed: give the seed that it was made '
      'from, and apply the delta to it'
    )
  if found != own_file.FORMAT:
    raise SeedError(
      f'{location} is a safetensors file of another format ({found!r})'
    )
  version = metadata.get('version')
  if version != own_file.VERSION:
    raise SeedError(
      f'{location} is a seed of version {version!r}; this release reads '
      f'version {own_file.VERSION}'
    )


def _chunks(leaf: Any, name: str) -> Iterator[memoryview]:
  # A generator, so that only one tensor at a time is copied to the host.
  yield from fingerprints.little_endian_chunks(fingerprints.to_host(leaf, name))
