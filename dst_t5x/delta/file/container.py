"""Deltas as files: one safetensors file, specified in FORMAT.md.

`write` streams. `read` first checks a hash of the whole file, and even then
trusts nothing: sizes, counts, order and ranges are checked before memory is
taken for them, and nothing in a file is ever executed.
"""

import hashlib
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import safetensors

from dst_t5x.arrays import atomic, dtypes, safetensors_file
from dst_t5x.delta.file import parsing, serializing
from dst_t5x.delta.file.replaced_values import SeedValues
from dst_t5x.delta.types import DeltaError, DeltaFileError, SubsetDelta

_READ_SIZE = 1 << 16  # bytes


def write(
  delta: SubsetDelta,
  path: str | os.PathLike[str],
  *,
  seed: Mapping[str, Any] | None = None,
) -> int:
  """Writes a delta atomically; the same delta always gives the same bytes.

  Args:
    delta: the delta.
    path: the file, ending in .safetensors.
    seed: the seed's parameters, nested dict of arrays. If given, values are
      stored as differences from it where that is shorter, and reading needs
      the seed too.

  Returns:
    Size of the file (bytes).

  Raises:
    DeltaFileError: if the name has another ending, or the delta cannot be
      stored.
    WrongSeedError: if the seed is not the delta's.
    OSError: if the file cannot be written; what was there is still there.

  Example:
    >>> import tempfile
    >>> import numpy as np
    >>> from dst_t5x import delta
    >>> d = delta.diff({'a': np.zeros(9)}, {'a': np.eye(3).reshape(-1)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   file = os.path.join(folder, 'delta.safetensors')
    ...   write(d, file) == os.path.getsize(file), read(file) == d
    (True, True)
  """
  name = os.fspath(path)
  if not name.endswith('.safetensors'):
    raise DeltaFileError(f'{name}: a delta must end in .safetensors')
  try:
    return atomic.write_bytes(path, _stream(delta, seed))
  except DeltaError:
    raise
  except ValueError as error:
    raise DeltaFileError(f'{name}: cannot be written: {error}') from error


def read(
  path: str | os.PathLike[str], *, seed: SeedValues | None = None
) -> SubsetDelta:
  """Reads a delta, checked.

  Args:
    path: the file.
    seed: the seed's parameters, nested dict of arrays, or its opened
      checkpoint; needed only for a file that was written with a seed.

  Returns:
    The delta; its arrays are read-only.

  Raises:
    DeltaFileError: if there is no such file, it is no delta or of another
      major version, or anything in it is not as it was written.
    DeltaError: of another kind, if the seed does not fit.

  Example:
    >>> read('no/such/file.safetensors')
    Traceback (most recent call last):
    ...
    dst_t5x.delta.types.DeltaFileError: no/such/file.safetensors: no such file
  """
  name = os.fspath(path)
  try:
    with safetensors_file.open_safely(path) as handle:
      before = os.stat(path)
      metadata = parsing.check_metadata(handle.metadata() or {})
      _check_digest(name, handle)
      delta = parsing.parse(handle, metadata, seed)
      after = os.stat(path)
  except DeltaError as error:
    raise type(error)(f'{name}: {error}') from error
  except (ValueError, OSError, safetensors.SafetensorError) as error:
    message = str(error).removeprefix(f'{name}: ')
    raise DeltaFileError(f'{name}: {message}') from error
  if (before.st_ino, before.st_size, before.st_mtime_ns) != (
    after.st_ino,
    after.st_size,
    after.st_mtime_ns,
  ):
    raise DeltaFileError(f'{name}: changed while it was read')
  return delta


def sections(path: str | os.PathLike[str]) -> dict[str, int]:
  """Returns how many bytes each part of a file takes; reads its header alone.

  Args:
    path: the file.

  Returns:
    Bytes by name of the part, 'header' first.

  Raises:
    DeltaFileError: if it is no complete safetensors file.

  Example:
    >>> sections('no/such/file.safetensors')
    Traceback (most recent call last):
    ...
    dst_t5x.delta.types.DeltaFileError: no/such/file.safetensors: no such file
  """
  try:
    with safetensors_file.open_safely(path) as handle:
      sizes = {}
      for name in handle.offset_keys():
        tensor = handle.get_slice(name)
        dtype = dtypes.BY_CODE.get(tensor.get_dtype())
        if dtype is None:
          raise ValueError(f'{path}: {name!r} is {tensor.get_dtype()}')
        sizes[name] = dtype.itemsize * math.prod(tensor.get_shape())
  except ValueError as error:
    raise DeltaFileError(str(error)) from error
  return {'header': os.path.getsize(path) - sum(sizes.values()), **sizes}


def _stream(
  delta: SubsetDelta, seed: Mapping[str, Any] | None
) -> Iterator[atomic.Bytes]:
  """Yields the file, with the hash of all that came before at its end."""
  sha256 = hashlib.sha256()

  def digest() -> Iterator[bytes]:
    yield sha256.digest()

  tensors = [
    *serializing.tensors(delta, seed),
    serializing.byte_tensor(parsing.DIGEST, 32, digest()),
  ]
  metadata = serializing.metadata(delta)
  for chunk in safetensors_file.stream(tensors, metadata):
    sha256.update(chunk)
    yield chunk


def _check_digest(name: str, handle: Any) -> None:
  """Checks the hash of all that comes before it, which ends the file."""
  keys = handle.offset_keys()
  if not keys or keys[-1] != parsing.DIGEST:
    raise DeltaFileError(f'does not end in its {parsing.DIGEST!r}')
  parsing.check_tensor(handle, parsing.DIGEST, 'U8', 32)
  left = os.path.getsize(name) - 32
  sha256 = hashlib.sha256()
  with open(name, 'rb') as file:
    while left > 0 and (chunk := file.read(min(left, _READ_SIZE))):
      sha256.update(chunk)
      left -= len(chunk)
    digest = file.read(32)
  if left or digest != sha256.digest():
    raise DeltaFileError(
      f'is damaged: its content hashes to {sha256.hexdigest()}, and '
      f'{digest.hex()} was written'
    )
