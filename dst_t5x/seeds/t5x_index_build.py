"""Builds the index of a legacy T5X checkpoint; see `t5x_index`."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from dst_t5x.arrays import paths
from dst_t5x.seeds import t5x_index

_CHUNK = 64 << 20  # bytes


def build(
  specs: Mapping[str, tuple[tuple[int, ...], np.dtype]], step: int
) -> bytes:
  """Returns the index of a checkpoint in which every tensor has a folder.

  Args:
    specs: shape and dtype by path.
    step: of the checkpoint.

  Returns:
    Content of the file `checkpoint`.

  Example:
    >>> data = build({'a/b': ((2,), np.dtype('float32'))}, 7)
    >>> t5x_index.parse(data, 'here').tensors['a/b'].folder
    'target.a.b'
  """
  from flax import serialization

  target = {
    path: {
      'driver': 'zarr',
      'dtype': dtype.name,
      'kvstore': {'driver': 'file', 'path': f'{folder(path)}/'},
      # T5X takes these two out without looking, so they have to be there.
      'metadata': {
        'shape': list(shape),
        'chunks': chunks(shape, dtype.itemsize),
        'compressor': {'id': 'gzip', 'level': 1},
      },
    }
    for path, (shape, dtype) in specs.items()
  }
  # An array, not a scalar: T5X asks for its dtype.
  state = {'step': np.asarray(step, np.int32)}
  return serialization.msgpack_serialize(
    {
      'version': t5x_index.VERSION,
      'optimizer': {'target': paths.unflatten(target), 'state': state},
    }
  )


def chunks(shape: Sequence[int], itemsize: int) -> list[int]:
  """Returns the shape of the pieces that a tensor is stored in.

  Args:
    shape: of the tensor.
    itemsize: of an entry (bytes).

  Returns:
    Shape of a piece of at most 64 MiB, as T5X likes them.

  Example:
    >>> chunks((32768, 4096), 4)
    [4096, 4096]
  """
  found = [max(1, size) for size in shape]
  while math.prod(found) * itemsize > _CHUNK:
    axis = found.index(max(found))
    found[axis] = -(-found[axis] // 2)
  return found


def folder(path: str) -> str:
  """Returns the folder's name of a parameter.

  Args:
    path: '/'-joined.

  Returns:
    The name.

  Example:
    >>> folder('encoder/encoder_norm/scale')
    'target.encoder.encoder_norm.scale'
  """
  return 'target.' + path.replace('/', '.')
