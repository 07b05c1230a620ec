"""Applying a delta to a seed that is larger than memory.

The seed is read one parameter at a time, changed, and written on at once. It is
hashed on the way, before and after, and the file appears only if both are what
the delta says.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dst_t5x.arrays import atomic, fingerprints, flat_access, safetensors_file
from dst_t5x.arrays.source import Source
from dst_t5x.delta import checks, verification
from dst_t5x.delta.types import DeltaError, SubsetDelta
from dst_t5x.seeds import own_file, targets


def apply(
  source: Source,
  delta: SubsetDelta,
  path: str | os.PathLike[str],
  *,
  config: Mapping[str, Any] | None = None,
  overwrite: bool = False,
) -> int:
  """Writes the seed with the delta's values in it as a file of our own_file.

  Never more than one parameter, and a copy of it, is in memory.

  Args:
    source: the opened seed, in any layout.
    delta: made from this seed.
    path: the file, ending in .safetensors.
    config: the network's configuration (JSON types), or None.
    overwrite: whether to replace what is there.

  Returns:
    Size of the file (bytes).

  Raises:
    DeltaError: of the kinds that `delta.apply` names; nothing is written.
    SeedError: if the seed cannot be read, or the file has another ending or is
      there already.
    OSError: if the file cannot be written; what was there is still there.

  Example:
    >>> import tempfile
    >>> from dst_t5x import delta
    >>> from dst_t5x import seeds
    >>> seed = seeds.read('bundled')
    >>> same = delta.diff(seed.params, seed.params)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   file = os.path.join(folder, 'tuned.safetensors')
    ...   _ = apply(seeds.open_source('bundled'), same, file)
    ...   seeds.read(file).fingerprint == seed.fingerprint
    True
  """
  own_file.check_name(path)
  if not overwrite:
    targets.local(path)
  specs = source.specs()
  checks.check_fits(specs, delta, "the seed's parameters")
  hashes = _Hashes(delta)
  metadata = own_file.describe(delta.info.result_fingerprint, None, config)
  tensors = own_file.tensors(specs, lambda name: _chunks(source, hashes, name))

  def checked() -> Iterator[atomic.Bytes]:
    yield from safetensors_file.stream(tensors, metadata)
    hashes.check()  # before the file takes its place

  try:
    return atomic.write_bytes(path, checked())
  except DeltaError:
    raise
  except ValueError as error:
    raise DeltaError(
      f'{os.fspath(path)}: cannot be written: {error}'
    ) from error


class _Hashes:
  """What was seen of the seed and of the outcome while they went by."""

  def __init__(self, delta: SubsetDelta):
    self.delta = delta
    self.before: dict[str, fingerprints.TensorDigest] = {}
    self.after: dict[str, fingerprints.TensorDigest] = {}
    self.replaced = {
      path: np.empty(0, entry.dtype) for path, entry in delta.entries.items()
    }

  def check(self) -> None:
    """Raises unless both were what the delta says."""
    verification.check_values(self.replaced, self.delta)
    found = fingerprints.combine(self.before)
    verification.check_seed(found, self.before, self.delta)
    if fingerprints.combine(self.after) != self.delta.info.result_fingerprint:
      verification.blame_seed_or_delta(found, self.before, self.delta)


def _chunks(source: Source, hashes: _Hashes, name: str) -> Iterator[memoryview]:
  leaf = source.read(names=[name])[name]
  hashes.before[name] = hashes.after[name] = fingerprints.digest(leaf, name)
  entry = hashes.delta.entries.get(name)
  if entry is not None and entry.size:
    hashes.replaced[name] = flat_access.gather(leaf, entry.positions, name)
    leaf = flat_access.scatter(leaf, entry.positions, entry.values, name)
    hashes.after[name] = fingerprints.digest(leaf, name)
  yield from fingerprints.little_endian_chunks(leaf)
