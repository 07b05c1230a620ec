"""Deltas for programs that know nothing of ours: nothing in them is coded.

  PATH.positions int32 or int64 [k], PATH.values [k], by the parameters' paths

in a safetensors file. Positions are flat, row-major and sorted. Parameters
without any are left out.
"""

import json
import math
import os
from collections.abc import Mapping

import numpy as np

from dst_t5x.arrays import dtypes, fingerprints, safetensors_file
from dst_t5x.delta.types import DeltaError, SubsetDelta

FORMAT = 'dst_t5x.plain_delta'
VERSION = '1.0'

# The parameters of a tensor that 32-bit positions reach (count).
INT32_REACH = 2**31


def write(delta: SubsetDelta, path: str | os.PathLike[str]) -> int:
  """Writes positions and values as they are, all of the file or nothing.

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
    >>> ones = delta.diff({'a': np.zeros(3)}, {'a': np.eye(3)[1]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   file = os.path.join(folder, 'plain.safetensors')
    ...   _ = write(ones, file)
    ...   sorted(load_file(file).items())
    [('a.positions', array([1], dtype=int32)), ('a.values', array([1.]))]
  """
  arrays: dict[str, np.ndarray] = {}
  shapes: dict[str, tuple[int, ...]] = {}
  for name, entry in delta.entries.items():
    if entry.size:
      wide = math.prod(entry.shape) > INT32_REACH
      dtype = np.int64 if wide else np.int32
      arrays[f'{name}.positions'] = entry.positions.astype(dtype)
      arrays[f'{name}.values'] = entry.values
      shapes[name] = tuple(entry.shape)
  return write_arrays(path, arrays, delta, kind=FORMAT, shapes=shapes)


def write_arrays(
  path: str | os.PathLike[str],
  arrays: Mapping[str, np.ndarray],
  delta: SubsetDelta,
  *,
  kind: str,
  shapes: Mapping[str, tuple[int, ...]],
) -> int:
  """Writes arrays with what they say of their delta.

  Args:
    path: the file, ending in .safetensors.
    arrays: by name.
    delta: that the arrays come from.
    kind: name of the format.
    shapes: of the tensors that the positions lie in, by name.

  Returns:
    Size of the file (bytes).

  Raises:
    DeltaError: if the file's name has another ending, or an array's name cannot
      be stored.
    OSError: if the file cannot be written; what was there is still there.
  """
  location = os.fspath(path)
  if not location.endswith('.safetensors'):
    raise DeltaError(f'{location}: the name must end in .safetensors')
  metadata = {
    'format': kind,
    'version': VERSION,
    'method': delta.info.method,
    'seed_fingerprint': delta.info.seed_fingerprint,
    'result_fingerprint': delta.info.result_fingerprint,
    'shapes': json.dumps(
      {name: list(shape) for name, shape in shapes.items()},
      separators=(',', ':'),
    ),
  }
  tensors = [
    safetensors_file.Tensor(
      name,
      array.dtype.name,
      array.shape,
      array.nbytes,
      fingerprints.little_endian_chunks(array),
    )
    for name, array in arrays.items()
  ]
  # Wide dtypes first, so that every tensor is aligned in a memory map.
  tensors.sort(key=lambda t: (-dtypes.DTYPES[t.dtype].itemsize, t.name))
  try:
    return safetensors_file.write(path, tensors, metadata)
  except ValueError as error:
    raise DeltaError(f'{location}: cannot be written: {error}') from error
