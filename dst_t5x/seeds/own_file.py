"""What a seed's file of our own says, and how its parameters are laid out."""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from dst_t5x.arrays import dtypes, safetensors_file
from dst_t5x.seeds.errors import SeedError

FORMAT = 'dst_t5x.seed'
VERSION = '1'


def check_name(path: str | os.PathLike[str]) -> str:
  """Returns a file's name if it ends as one of ours has to.

  Args:
    path: the file.

  Returns:
    The name.

  Raises:
    SeedError: if it has another ending.

  Example:
    >>> check_name('seed.safetensors')
    'seed.safetensors'
  """
  location = os.fspath(path)
  if not location.endswith('.safetensors'):
    raise SeedError(f'{location}: the name of a seed must end in .safetensors')
  return location


def describe(
  fingerprint: str, step: int | None, config: Mapping[str, Any] | None
) -> dict[str, str]:
  """Returns what a file of ours says about itself.

  Args:
    fingerprint: of its parameters.
    step: of the checkpoint, if one is known.
    config: the network's configuration (JSON types), or None.

  Returns:
    The metadata.

  Raises:
    ValueError: if the configuration is no JSON.

  Example:
    >>> describe('sha256:…', 7, None)['step']
    '7'
  """
  metadata = {
    'format': FORMAT,
    'version': VERSION,
    'fingerprint': fingerprint,
  }
  if config is not None:
    metadata['config'] = json.dumps(dict(config), allow_nan=False)
  if step is not None:
    metadata['step'] = str(step)
  return metadata


def tensors(
  specs: Mapping[str, Any],
  chunks: Callable[[str], Iterator[memoryview]],
) -> list[safetensors_file.Tensor]:
  """Returns parameters as they are laid out in a file of ours.

  Args:
    specs: something with shape and dtype for every path.
    chunks: gives the bytes of a parameter when its turn comes.

  Returns:
    Tensors in order.

  Example:
    >>> found = tensors({'b': np.ones(1), 'a': np.ones(1)}, lambda _: iter(()))
    >>> [tensor.name for tensor in found]
    ['a', 'b']
  """
  found = []
  for name, spec in specs.items():
    dtype, shape = np.dtype(spec.dtype), tuple(spec.shape)
    found.append(
      safetensors_file.Tensor(
        name,
        dtype.name,
        shape,
        dtype.itemsize * math.prod(shape),
        chunks(name),
      )
    )
  # Wide dtypes first, so that every tensor is aligned in a memory map.
  return sorted(found, key=lambda t: (-dtypes.DTYPES[t.dtype].itemsize, t.name))
