"""Deltas for programs that know nothing of ours: safetensors, nothing coded.

  plain   PATH.positions int32 or int64 [k], PATH.values [k], by our paths
  vllm    NAME.indices int32 [k], NAME.values [k]: the fields of vLLM's
          SparseWeightPatch, by Hugging Face's names and in its orientation

Positions are flat, row-major and sorted. Parameters without any are left out.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from dst_t5x.arrays import dtypes, fingerprints, paths, safetensors_file
from dst_t5x.delta.types import DeltaError, SubsetDelta
from dst_t5x.seeds import network_shapes
from dst_t5x.seeds.hugging_face import tensor_names

PLAIN_FORMAT = 'dst_t5x.plain_delta'
VLLM_FORMAT = 'dst_t5x.sparse_weight_patches'
VERSION = '1.0'

_INT32 = 2**31  # entries that 32-bit positions reach


def write_plain(delta: SubsetDelta, path: str | os.PathLike[str]) -> int:
  """Writes positions and values as they are, atomically.

  Args:
    delta: the delta.
    path: the file, ending in .safetensors.

  Returns:
    Size of the file (bytes).

  Raises:
    DeltaError: if the name has another ending, or cannot be stored.
    OSError: if the file cannot be written; what was there is still there.

  Example:
    >>> import tempfile
    >>> from dst_t5x import delta
    >>> from safetensors.numpy import load_file
    >>> found = delta.diff({'a': np.zeros(3)}, {'a': np.eye(3)[1]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   file = os.path.join(folder, 'plain.safetensors')
    ...   _ = write_plain(found, file)
    ...   sorted(load_file(file).items())
    [('a.positions', array([1], dtype=int32)), ('a.values', array([1.]))]
  """
  parts: dict[str, np.ndarray] = {}
  for name, entry in delta.entries.items():
    if entry.size:
      wide = math.prod(entry.shape) > _INT32
      kind = np.int64 if wide else np.int32
      parts[f'{name}.positions'] = entry.positions.astype(kind)
      parts[f'{name}.values'] = entry.values
  shapes = {
    name: list(entry.shape)
    for name, entry in delta.entries.items()
    if entry.size
  }
  return _write(path, parts, _about(delta, PLAIN_FORMAT, shapes))


def write_vllm(
  delta: SubsetDelta,
  path: str | os.PathLike[str],
  specs: Mapping[str, Any],
) -> int:
  """Writes what vLLM's SparseWeightPatch holds, atomically.

  Hugging Face keeps the matrix of a linear map as [out, in] and we as
  [in, out], so positions in them are turned.

  Args:
    delta: the delta of a T5 1.1.
    path: the file, ending in .safetensors.
    specs: shape and dtype of every parameter of the model, by path.

  Returns:
    Size of the file (bytes).

  Raises:
    DeltaError: if a tensor is too large for 32-bit positions, the name has
      another ending, or cannot be stored.
    SeedError: if the model is no T5 1.1.
    OSError: if the file cannot be written; what was there is still there.
  """
  location = os.fspath(path)
  found = network_shapes.from_shapes(
    dict(specs), 'the delta, with the seed if one is given,'
  )
  table = tensor_names.table(found)
  parts: dict[str, np.ndarray] = {}
  shapes = {}
  for name, entry in delta.entries.items():
    if not entry.size:
      continue
    if math.prod(entry.shape) > _INT32:
      raise DeltaError(
        f'{location}: {name!r} has {math.prod(entry.shape)} entries, and a '
        f'SparseWeightPatch reaches {_INT32}; --to plain has no such bound'
      )
    theirs = table[name]
    positions, values = entry.positions, entry.values
    if theirs.turned:
      rows, columns = np.divmod(positions, entry.shape[1])
      positions = columns * entry.shape[0] + rows
      order = np.argsort(positions)
      positions, values = positions[order], values[order]
    parts[f'{theirs.name}.indices'] = positions.astype(np.int32)
    parts[f'{theirs.name}.values'] = values
    turn = -1 if theirs.turned else 1
    shapes[theirs.name] = list(entry.shape[::turn])
  return _write(path, parts, _about(delta, VLLM_FORMAT, shapes))


def specs_of(
  delta: SubsetDelta, params: Mapping[str, Any] | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns shape and dtype of a model's parameters.

  Args:
    delta: of the model, which may know all of its parameters or not.
    params: nested dict of arrays; None for those that the delta knows.

  Returns:
    Shapes by path.

  Example:
    >>> from dst_t5x import delta as lib
    >>> specs_of(lib.diff({'a': np.ones(2)}, {'a': np.ones(2)}))['a'].shape
    (2,)
  """
  leaves = delta.entries if params is None else paths.flatten(params)
  return {
    path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    for path, leaf in leaves.items()
  }


def _about(
  delta: SubsetDelta, kind: str, shapes: Mapping[str, list[int]]
) -> dict[str, str]:
  return {
    'format': kind,
    'version': VERSION,
    'method': delta.info.method,
    'seed_fingerprint': delta.info.seed_fingerprint,
    'result_fingerprint': delta.info.result_fingerprint,
    'shapes': json.dumps(dict(shapes), separators=(',', ':')),
  }


def _write(
  path: str | os.PathLike[str],
  parts: Mapping[str, np.ndarray],
  metadata: Mapping[str, str],
) -> int:
  location = os.fspath(path)
  if not location.endswith('.safetensors'):
    raise DeltaError(f'{location}: the name must end in .safetensors')
  tensors = [
    safetensors_file.Tensor(
      name, array.dtype.name, array.shape, array.nbytes, _chunks(array)
    )
    for name, array in parts.items()
  ]
  # Wide dtypes first, so that every tensor is aligned in a memory map.
  tensors.sort(key=lambda t: (-dtypes.DTYPES[t.dtype].itemsize, t.name))
  try:
    return safetensors_file.write(path, tensors, metadata)
  except ValueError as error:
    raise DeltaError(f'{location}: cannot be written: {error}') from error


def _chunks(array: np.ndarray) -> Iterator[memoryview]:
  yield from fingerprints.little_endian_chunks(array)
