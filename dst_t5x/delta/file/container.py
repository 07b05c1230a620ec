"""Deltas as files: one safetensors file, specified in the README.

`write` streams: besides the delta itself it holds the coded positions only.
`read` first checks a hash of the whole file, then believes nothing all the
same: sizes, counts, order and ranges are checked before memory is taken for
them, and nothing in a file is ever executed.
"""

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import safetensors

from dst_t5x.arrays import (
  atomic,
  dtypes,
  fingerprints,
  paths,
  safetensors_file,
)
from dst_t5x.delta import checks, verification
from dst_t5x.delta.file import (
  numbers,
  parsing,
  replaced_values,
  value_differences,
)
from dst_t5x.delta.file import table as delta_table
from dst_t5x.delta.types import (
  DeltaError,
  DeltaFileError,
  DeltaInfo,
  SubsetDelta,
)

FORMAT = parsing.FORMAT
VERSION = parsing.VERSION

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
    seed: the seed's parameters. If given, values are stored as differences
      from it where that is shorter, and reading needs the seed too.

  Returns:
    Size of the file (bytes).

  Raises:
    DeltaFileError: if the name has another ending, or the delta cannot be
      stored.
    WrongSeedError: if the seed is not the delta's.
    OSError: if the file cannot be written; what was there is still there.

  Example:
    >>> import tempfile
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
  path: str | os.PathLike[str], *, seed: replaced_values.Seed | None = None
) -> SubsetDelta:
  """Reads a delta, checked.

  Args:
    path: the file.
    seed: the seed's parameters, or its opened checkpoint, for a file that was
      written with them.

  Returns:
    The delta; its arrays cannot be written to.

  Raises:
    DeltaFileError: if there is no such file, it is none of ours or of a newer
      version, or anything in it is not as it was written.
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
  """Returns how many bytes each part of a file takes, without reading it.

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
        part = handle.get_slice(name)
        dtype = dtypes.BY_CODE.get(part.get_dtype())
        if dtype is None:
          raise ValueError(f'{path}: {name!r} is {part.get_dtype()}')
        sizes[name] = dtype.itemsize * math.prod(part.get_shape())
  except ValueError as error:
    raise DeltaFileError(str(error)) from error
  return {'header': os.path.getsize(path) - sum(sizes.values()), **sizes}


def _stream(
  delta: SubsetDelta, seed: Mapping[str, Any] | None
) -> Iterator[atomic.Bytes]:
  """Yields the file, with the hash of all that came before at its end."""
  sha256 = hashlib.sha256()

  def seal() -> Iterator[bytes]:
    yield sha256.digest()

  tensors = [*_tensors(delta, seed), _blob(parsing.DIGEST, 32, seal())]
  for chunk in safetensors_file.stream(tensors, _header_text(delta)):
    sha256.update(chunk)
    yield chunk


def _tensors(
  delta: SubsetDelta, seed: Mapping[str, Any] | None
) -> Iterator[safetensors_file.Tensor]:
  replaced = None
  if seed is not None:
    flat = paths.flatten(seed)
    checks.check_fits(flat, delta, "the seed's parameters")
    replaced = verification.check_replaced(flat, delta)
  by_dtype: dict[str, list[str]] = {}
  for path, entry in delta.entries.items():
    if entry.size:
      by_dtype.setdefault(entry.dtype.name, []).append(path)
  differences = []
  # Wide dtypes first, so that every tensor is aligned in a memory map.
  for dtype in sorted(by_dtype, key=_wide_first):
    values = [delta.entries[path].values for path in by_dtype[dtype]]
    if replaced is not None:
      seeds = [replaced[path] for path in by_dtype[dtype]]
      code = value_differences.encode(
        np.concatenate(values), np.concatenate(seeds)
      )
      if code is not None:
        differences.append(
          _blob(parsing.DIFFERENCES + dtype, len(code), [code])
        )
        continue
    count = sum(array.size for array in values)
    yield safetensors_file.Tensor(
      parsing.VALUES + dtype,
      dtype,
      [count],
      count * dtypes.DTYPES[dtype].itemsize,
      _chunks(values),
    )
  yield from differences
  table = delta_table.dump(delta)
  yield _blob(parsing.PARAMETERS, len(table), [table])
  code = numbers.encode(_distances(delta))
  yield _blob(parsing.POSITIONS, len(code), [code])


def _distances(delta: SubsetDelta) -> np.ndarray:
  """Returns steps between positions, all parameters laid end to end."""
  placed, offset = [np.full(1, -1)], 0
  for entry in delta.entries.values():
    placed.append(entry.positions + offset)
    offset += math.prod(entry.shape)
  return np.diff(np.concatenate(placed))


def _chunks(values: Sequence[np.ndarray]) -> Iterator[memoryview]:
  for array in values:
    yield from fingerprints.little_endian_chunks(array)


def _blob(name: str, size: int, chunks: Any) -> safetensors_file.Tensor:
  return safetensors_file.Tensor(name, 'uint8', [size], size, chunks)


def _header_text(delta: SubsetDelta) -> dict[str, str]:
  version = delta_table.version(delta_table.dump(delta))
  text = {'format': FORMAT, 'version': '.'.join(map(str, version))}
  for name in DeltaInfo.__dataclass_fields__:
    value = getattr(delta.info, name)
    if value is not None:
      text[name] = value if isinstance(value, str) else repr(value)
  return text


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


def _wide_first(dtype: str) -> tuple[int, str]:
  return -dtypes.DTYPES[dtype].itemsize, dtype
