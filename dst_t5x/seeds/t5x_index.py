"""The index of a legacy T5X checkpoint: one msgpack file, `checkpoint`.

  {'version': 3,
   'optimizer': {'target': {…: tensor}, 'state': {'step': …, …}}}

A tensor is either the array itself, or the TensorStore spec of a zarr array
in the folder `target.<path with dots>` beside the index.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dst_t5x.arrays import dtypes
from dst_t5x.seeds.errors import SeedError

NAME = 'checkpoint'
VERSION = 3
_OLDEST = 2


class Stored(NamedTuple):
  """A tensor in a zarr folder of its own.

  Attributes:
    folder: name of the folder.
    shape: its shape.
    dtype: its dtype.
  """

  folder: str
  shape: tuple[int, ...]
  dtype: np.dtype


class Index(NamedTuple):
  """What the index says.

  Attributes:
    tensors: the parameters by path: arrays, or where they lie.
    step: the same for the step; None if it is not there.
  """

  tensors: dict[str, np.ndarray | Stored]
  step: np.ndarray | Stored | None


def parse(data: bytes, location: str) -> Index:
  """Returns what an index says, checked.

  Args:
    data: content of the file `checkpoint`.
    location: of the checkpoint, for errors.

  Returns:
    The index.

  Raises:
    SeedError: if it is damaged, or no index of a T5X checkpoint.

  Example:
    >>> from flax import serialization
    >>> data = serialization.msgpack_serialize(
    ...   {'version': 3, 'optimizer': {'target': {'a': np.ones(2)}}}
    ... )
    >>> parse(data, 'here').tensors
    {'a': array([1., 1.])}
  """
  if data.startswith(b'model_checkpoint_path'):
    raise SeedError(
      f'{location} is a TensorFlow checkpoint of Mesh T5; convert it with '
      'T5X (t5x.scripts.convert_tf_checkpoint) first'
    )
  content = _unpack(data, location)
  version = content.get('version')
  if not isinstance(version, int) or version < _OLDEST:
    raise SeedError(
      f'{location} is a T5X checkpoint of version {version!r}; versions from '
      f'{_OLDEST} on can be read'
    )
  state = content.get('optimizer')
  target = state.get('target') if isinstance(state, Mapping) else None
  if not isinstance(target, Mapping) or not target:
    raise SeedError(f'{location}: its index names no parameters (target)')
  tensors: dict[str, np.ndarray | Stored] = {}
  _walk(target, (), tensors, location)
  states = state.get('state') if isinstance(state, Mapping) else None
  step = states.get('step') if isinstance(states, Mapping) else None
  return Index(
    tensors, None if step is None else _leaf(step, 'state/step', location)
  )


def _unpack(data: bytes, location: str) -> Mapping[str, Any]:
  from flax import serialization

  try:
    content = serialization.msgpack_restore(data)
  # msgpack's own errors are ValueErrors or, for data cut short, of no common
  # class; what it makes of damaged bytes can fail in NumPy.
  except Exception as error:
    raise SeedError(
      f'{location} is damaged: its index (the file {NAME!r}) is no complete '
      f'msgpack: {error}'
    ) from error
  if not isinstance(content, Mapping):
    raise SeedError(
      f'{location}: its index (the file {NAME!r}) holds a '
      f'{type(content).__name__} instead of a map; it is no T5X checkpoint'
    )
  return content


def _walk(
  node: Mapping[str, Any],
  prefix: tuple[str, ...],
  found: dict[str, np.ndarray | Stored],
  location: str,
) -> None:
  for key, child in node.items():
    if not isinstance(key, str) or not key or '/' in key:
      raise SeedError(
        f'{location} is damaged: a parameter under {"/".join(prefix)!r} has '
        f'the name {key!r}'
      )
    path = (*prefix, key)
    if isinstance(child, Mapping) and 'kvstore' not in child:
      _walk(child, path, found, location)
    elif child is not None:
      found['/'.join(path)] = _leaf(child, '/'.join(path), location)


def _leaf(leaf: Any, path: str, location: str) -> np.ndarray | Stored:
  if not isinstance(leaf, Mapping):
    array = np.asarray(leaf)
    if array.dtype.name not in dtypes.DTYPES:
      raise SeedError(
        f'{location}: parameter {path!r} is a {type(leaf).__name__} of dtype '
        f'{array.dtype}, which no seed has'
      )
    return array
  try:
    store, metadata = leaf['kvstore'], leaf['metadata']
    # Old versions of TensorStore kept the path beside the store.
    folder = store.get('path') or leaf['path']
    shape = tuple(int(size) for size in metadata['shape'])
    dtype = _dtype(leaf.get('dtype') or metadata['dtype'])
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise SeedError(
      f'{location} is damaged: its index does not say where {path!r} lies '
      f'({type(error).__name__}: {error})'
    ) from error
  folder = folder.rstrip('/')
  if folder in ('', '.', '..') or '/' in folder or '\\' in folder:
    raise SeedError(
      f'{location}: its index says that {path!r} lies in {folder!r}, which is '
      'no folder of the checkpoint'
    )
  if dtype == np.uint16:
    raise SeedError(
      f'{location}: {path!r} is of dtype uint16, which is how T5X kept '
      'bfloat16 before June 2021; restore and save the checkpoint with a '
      'newer T5X'
    )
  return Stored(folder, shape, dtype)


def _dtype(name: str) -> np.dtype:
  dtype = dtypes.DTYPES.get(name)
  return np.dtype(name) if dtype is None else dtype
