"""Tables and parts of tensors in safetensors files, ours or others'."""

from typing import Any

import jax
import numpy as np
import safetensors

from dst_t5x.arrays import safetensors_file
from dst_t5x.arrays.dtypes import BY_CODE
from dst_t5x.seeds.errors import SeedError
from dst_t5x.seeds.tensor_reading import Index


def opened(file: str, location: str) -> safetensors.safe_open:
  """Opens a safetensors file.

  Args:
    file: the file.
    location: what the user called it.

  Returns:
    The library's handle, to be used in a `with`.

  Raises:
    SeedError: if it is no complete safetensors file.

  Example:
    >>> from dst_t5x import seeds
    >>> file = str(seeds.bundled_path())
    >>> with opened(file, 'bundled') as handle:
    ...   'token_embedder/embedding' in handle.keys()
    True
  """
  try:
    return safetensors_file.open_safely(file)
  except ValueError as error:
    what = '' if file == location else f' {location}'
    raise SeedError(f'cannot read the seed{what}: {error}') from error


def specs(handle: Any, location: str) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns shape and dtype of every tensor in an open file.

  Args:
    handle: the library's.
    location: of the seed, for errors.

  Returns:
    Shapes by name, sorted.

  Raises:
    SeedError: if a dtype is none that seeds have.

  Example:
    >>> from dst_t5x import seeds
    >>> file = str(seeds.bundled_path())
    >>> with opened(file, 'bundled') as handle:
    ...   specs(handle, 'bundled')['token_embedder/embedding'].shape
    (384, 96)
  """
  found = {}
  for name in sorted(handle.keys()):
    tensor = handle.get_slice(name)
    code = tensor.get_dtype()
    if code not in BY_CODE:
      raise SeedError(
        f'the seed {location} has {name!r} in dtype {code}; supported: '
        + ', '.join(BY_CODE)
      )
    shape = tuple(tensor.get_shape())
    found[name] = jax.ShapeDtypeStruct(shape, BY_CODE[code])
  return found


def part(handle: Any, name: str, at: Index, location: str) -> np.ndarray:
  """Reads a part of a tensor in an open file.

  Args:
    handle: the library's.
    name: of the tensor.
    at: a slice with bounds for every axis.
    location: of the seed, for errors.

  Returns:
    The part.

  Raises:
    SeedError: if it cannot be read.

  Example:
    >>> from dst_t5x import seeds
    >>> file = str(seeds.bundled_path())
    >>> with opened(file, 'bundled') as handle:
    ...   at = slice(0, 2), slice(5, 8)
    ...   part(handle, 'token_embedder/embedding', at, 'bundled').shape
    (2, 3)
  """
  try:
    tensor = handle.get_slice(name)
    shape = tensor.get_shape()
    if all(s == slice(0, n) for s, n in zip(at, shape, strict=True)):
      return np.asarray(handle.get_tensor(name))
    return np.asarray(tensor[at])
  except (safetensors.SafetensorError, OSError, KeyError) as error:
    raise SeedError(
      f'cannot read {name!r} of the seed {location}: {error}'
    ) from error
