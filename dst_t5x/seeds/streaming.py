"""Applying a delta to a seed that is larger than memory.

The seed is read one parameter at a time; each is changed and written before the
next is read. Every parameter is hashed before and after the change, and the
file appears only if both fingerprints are those that the delta names.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dst_t5x.arrays import atomic, fingerprints, flat_access
from dst_t5x.arrays.source import Source
from dst_t5x.delta import checks, verification
from dst_t5x.delta.types import DeltaError, SubsetDelta
from dst_t5x.seeds import own_layout, targets


def apply(
  source: Source,
  delta: SubsetDelta,
  path: str | os.PathLike[str],
  *,
  config: Mapping[str, Any] | None = None,
  overwrite: bool = False,
) -> int:
  """Applies a delta to a seed and writes the result in the layout of dst-t5x.

  At most one parameter, and a copy of it, is in memory.

  Args:
    source: the opened seed, in any layout.
    delta: the delta, made from this seed.
    path: path of the file to write, ending in .safetensors.
    config: the network's configuration (JSON types), or None.
    overwrite: whether to replace what is there.

  Returns:
    Size of the file (bytes).

  Raises:
    DeltaError: one of the classes that `delta.apply` raises; nothing is
      written.
    SeedError: if the seed cannot be read, or the file's name has another
      ending, or the file is there already.
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
  targets.seed_file(path, overwrite=overwrite)
  specs = source.specs()
  checks.check_fits(specs, delta, "the seed's parameters")
  hashes = _Hashes(delta)
  content = own_layout.file_bytes(
    specs,
    lambda name: _chunks(source, hashes, name),
    fingerprint=delta.info.result_fingerprint,
    config=config,
  )

  def checked() -> Iterator[atomic.Bytes]:
    yield from content
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
  """Digests of the seed and of the result, taken while they are written."""

  def __init__(self, delta: SubsetDelta):
    self.delta = delta
    self.before: dict[str, fingerprints.TensorDigest] = {}
    self.after: dict[str, fingerprints.TensorDigest] = {}
    self.replaced = {
      path: np.empty(0, entry.dtype) for path, entry in delta.entries.items()
    }

  def check(self) -> None:
    """Raises unless seed and result have the fingerprints the delta names."""
    verification.check_values(self.replaced, self.delta)
    seed = fingerprints.combine(self.before)
    verification.check_seed(seed, self.before, self.delta)
    if fingerprints.combine(self.after) != self.delta.info.result_fingerprint:
      verification.blame_seed_or_delta(seed, self.before, self.delta)


def _chunks(source: Source, hashes: _Hashes, name: str) -> Iterator[memoryview]:
  leaf = source.read(names=[name])[name]
  hashes.before[name] = hashes.after[name] = fingerprints.digest(leaf, name)
  entry = hashes.delta.entries.get(name)
  if entry is not None and entry.size:
    hashes.replaced[name] = flat_access.gather(leaf, entry.positions, name)
    leaf = flat_access.scatter(leaf, entry.positions, entry.values, name)
    hashes.after[name] = fingerprints.digest(leaf, name)
  yield from fingerprints.little_endian_chunks(leaf)
