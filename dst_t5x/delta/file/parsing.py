"""From the tensors and metadata of an opened file to a delta.

Whoever wrote the file may have meant harm: every count is compared with the
bytes that are there before memory is taken for it.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dst_t5x.arrays import dtypes
from dst_t5x.delta.file import numbers, replaced_values, value_differences
from dst_t5x.delta.file import table as delta_table
from dst_t5x.delta.types import (
  DeltaEntry,
  DeltaError,
  DeltaFileError,
  DeltaInfo,
  SubsetDelta,
)

FORMAT = 'dst_t5x.delta'
VERSION = (1, 1)

# Names of the tensors; the last two are followed by a dtype.
PARAMETERS = 'parameters'
POSITIONS = 'positions'
DIGEST = 'sha256'
VALUES = 'values.'
DIFFERENCES = 'differences.'


def check_metadata(metadata: Mapping[str, str]) -> Mapping[str, str]:
  """Checks that a file is a delta of a version that can be read.

  Args:
    metadata: of the safetensors file.

  Returns:
    The same.

  Raises:
    DeltaFileError: if it is not.

  Example:
    >>> check_metadata({'format': 'dst_t5x.delta', 'version': '1.7'})['version']
    '1.7'
  """
  if metadata.get('format') != FORMAT:
    raise DeltaFileError(
      f'is a safetensors file of the format {metadata.get("format")!r:.40}, '
      f'not {FORMAT!r}'
    )
  version = metadata.get('version', '')
  match = re.fullmatch(r'([0-9]{1,6})\.([0-9]{1,6})', version)
  if match is None or int(match[1]) != VERSION[0]:
    raise DeltaFileError(
      f'has version {version[:40]!r}; this release reads {VERSION[0]}.x, '
      'and a newer one may read it'
    )
  return metadata


def check_tensor(handle: Any, name: str, code: str, size: int | None) -> None:
  """Checks that a tensor is there, is a list, and has a dtype and size.

  Args:
    handle: the opened file.
    name: of the tensor.
    code: its dtype as safetensors writes it.
    size: its length; None takes any.

  Raises:
    DeltaFileError: if one of that is not so.
  """
  if name not in handle.keys():  # noqa: SIM118 (the handle is no mapping)
    raise DeltaFileError(f'has no tensor {name!r}')
  part = handle.get_slice(name)
  found = part.get_dtype(), list(part.get_shape())
  if found[0] != code or len(found[1]) != 1 or size not in (None, found[1][0]):
    raise DeltaFileError(
      f'tensor {name!r} is {found[0]} {found[1]}; {code} '
      f'[{"any" if size is None else size}] is needed'
    )


def parse(
  handle: Any, metadata: Mapping[str, str], seed: replaced_values.Seed | None
) -> SubsetDelta:
  """Returns the delta in an opened file.

  Args:
    handle: the opened file, its hash checked.
    metadata: the file's, checked by `check_metadata`.
    seed: the seed's parameters, or its opened checkpoint, if values are stored
      as differences.

  Returns:
    The delta.

  Raises:
    DeltaError: if anything does not fit anything else.
    ValueError: if a coded part is damaged.
  """
  info = _info(metadata)
  table = delta_table.parse(_bytes(handle, PARAMETERS))
  counts: dict[str, int] = {}
  for row in table:
    if row.selected:
      counts[row.dtype] = counts.get(row.dtype, 0) + row.selected
  coded = _check_names(handle, counts)
  codes = {dtype: _bytes(handle, DIFFERENCES + dtype) for dtype in coded}
  for dtype, code in codes.items():
    value_differences.check_count(counts[dtype], code)
  values: dict[str, np.ndarray] = {}
  for dtype, count in counts.items():
    if dtype not in coded:
      name = VALUES + dtype
      check_tensor(handle, name, dtypes.CODES[dtype], count)
      values[dtype] = np.asarray(handle.get_tensor(name))
  positions = _positions(_bytes(handle, POSITIONS), table)
  if coded:
    replaced = replaced_values.replaced(table, positions, seed, info)
    for dtype, code in codes.items():
      seeds = [replaced[row.path] for row in table if row.dtype == dtype]
      values[dtype] = value_differences.decode(code, np.concatenate(seeds))
  return SubsetDelta(_entries(table, positions, values), info)


def _info(metadata: Mapping[str, str]) -> DeltaInfo:
  def take(name: str) -> str:
    if name not in metadata:
      raise DeltaFileError(f'metadata lacks {name!r}')
    return metadata[name]

  def count(name: str) -> int:
    if not re.fullmatch('[0-9]{1,18}', take(name)):
      raise DeltaFileError(
        f'{name}={take(name)[:40]!r} in metadata is no count'
      )
    return int(take(name))

  epsilon = metadata.get('epsilon')
  if epsilon is not None and not re.fullmatch('[0-9.e-]{1,30}', epsilon):
    raise DeltaFileError(f'epsilon={epsilon[:40]!r} in metadata is no fraction')
  return DeltaInfo(
    method=take('method'),
    epsilon=None if epsilon is None else float(epsilon),
    budget=count('budget') if 'budget' in metadata else None,
    silo_rule=take('silo_rule'),
    step=count('step'),
    seed_fingerprint=take('seed_fingerprint'),
    replaced_hash=take('replaced_hash'),
    result_fingerprint=take('result_fingerprint'),
  )


def _check_names(handle: Any, counts: Mapping[str, int]) -> list[str]:
  """Returns the dtypes whose values are coded; all tensors must be known."""
  names = set(handle.keys())
  coded = [dtype for dtype in counts if DIFFERENCES + dtype in names]
  known = {PARAMETERS, POSITIONS, DIGEST} | {
    (DIFFERENCES if dtype in coded else VALUES) + dtype for dtype in counts
  }
  if names != known:
    raise DeltaFileError(
      f'has the tensors {sorted(names)}; {sorted(known)} are needed'
    )
  return coded


def _bytes(handle: Any, name: str) -> memoryview:
  check_tensor(handle, name, 'U8', None)
  return handle.get_tensor(name).data


def _positions(
  code: memoryview, table: Sequence[delta_table.Parameter]
) -> list[np.ndarray]:
  """Returns the flat positions of every parameter."""
  count = sum(row.selected for row in table)
  total = sum(math.prod(row.shape) for row in table)
  steps = numbers.decode(code, count, largest=max(total, 1))
  # In float64 this sum is exact as long as it is small enough to be right.
  if steps.sum(dtype=np.float64) > total:
    raise DeltaFileError(f'positions go beyond the {total} parameters')
  placed = np.cumsum(steps, out=steps)
  placed -= 1
  ends = np.cumsum([math.prod(row.shape) for row in table], dtype=np.int64)
  found = np.diff(np.searchsorted(placed, ends), prepend=0)
  pieces, used, offset = [], 0, 0
  for row, there, end in zip(table, found, ends, strict=True):
    if there != row.selected:
      raise DeltaFileError(
        f'{row.path!r} has {there} positions, and its count is {row.selected}'
      )
    piece = placed[used : used + row.selected]
    piece -= offset
    pieces.append(piece)
    used, offset = used + row.selected, int(end)
  for array in (placed, *pieces):
    array.flags.writeable = False
  return pieces


def _entries(
  table: Sequence[delta_table.Parameter],
  positions: Sequence[np.ndarray],
  values: Mapping[str, np.ndarray],
) -> dict[str, DeltaEntry]:
  used = dict.fromkeys(values, 0)
  for array in values.values():
    array.flags.writeable = False
  entries = {}
  for row, flat_positions in zip(table, positions, strict=True):
    part = np.empty(0, dtypes.DTYPES[row.dtype])
    if row.selected:
      start = used[row.dtype]
      used[row.dtype] = start + row.selected
      part = values[row.dtype][start : used[row.dtype]]
    try:
      entries[row.path] = DeltaEntry(
        row.shape, part.dtype, flat_positions, part
      )
    except DeltaError as error:
      raise type(error)(f'{row.path!r}: {error}') from error
  return entries
