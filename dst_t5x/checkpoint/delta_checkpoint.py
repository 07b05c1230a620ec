"""Delta checkpoints of T5X runs, read without T5X.

  MODEL_DIR/checkpoint_N/
    state/      one Orbax item:
      target/SILO             [k] values of the parameters in the subset
      state/positions/SILO    int32[k] where they are, flat, within one part
      state/counts/SILO       int32[parts] how many belong to each part
      state/manifest          uint8[n] JSON: method, silos, seed
      state/step, …           what a bit-identical resume needs
      state/inner/…           the inner optimizer's state
    dataset/    where the input stands, if it was saved

A part of a silo is a tensor, or one slice of a stack. A silo's name stands with
'.' for '/'; silos whose budget is 0 are left out.
"""

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dst_t5x.arrays import paths
from dst_t5x.checkpoint import manifest as manifest_lib
from dst_t5x.checkpoint.manifest import ManifestError
from dst_t5x.seeds import folders, orbax_items

MANIFEST = 'state/manifest'


class DeltaCheckpoint(NamedTuple):
  """An opened delta checkpoint.

  Attributes:
    location: of the checkpoint.
    item: folder of its Orbax item, `state`.
    manifest: what it says about itself; see `checkpoint.manifest`.
    shapes: shape and dtype of every array, by path.
  """

  location: str
  item: str
  manifest: Mapping[str, Any]
  shapes: Mapping[str, Any]


def key(silo: str) -> str:
  """Returns the name that a silo has in a checkpoint.

  Example:
    >>> key('encoder/layers_0/mlp')
    'encoder.layers_0.mlp'
  """
  return silo.replace('/', '.')


class SiloPaths(NamedTuple):
  """Where the arrays of a silo are in a checkpoint."""

  values: str
  positions: str
  counts: str


def silo_paths(silo: str, prefix: str = '') -> SiloPaths:
  """Returns where the arrays of a silo are.

  Args:
    silo: its name.
    prefix: '' for the delta; 'held_' or 'first_' for subsets of which only the
      positions are kept.

  Returns:
    Paths in the checkpoint.

  Example:
    >>> silo_paths('encoder/mlp').positions
    'state/positions/encoder.mlp'
  """
  name = key(silo)
  return SiloPaths(
    f'target/{name}',
    f'state/{prefix}positions/{name}',
    f'state/{prefix}counts/{name}',
  )


def latest(location: str) -> str | None:
  """Returns the newest checkpoint in a folder.

  Args:
    location: a run's MODEL_DIR, or a checkpoint itself.

  Returns:
    The checkpoint; `location` itself if it is one, None if there is none.

  Example:
    >>> latest('no/such/run') is None
    True
  """
  if re.fullmatch(r'checkpoint_\d+', location.rstrip('/').rpartition('/')[2]):
    return location.rstrip('/')
  names = folders.checkpoint_names(location)
  return folders.join(location, names[-1]) if names else None


def open_checkpoint(location: str) -> DeltaCheckpoint | None:
  """Opens a checkpoint that holds a delta.

  Args:
    location: such as MODEL_DIR/checkpoint_1000; path or URL.

  Returns:
    The checkpoint; None if it holds whole parameters, or is no checkpoint.

  Raises:
    SeedError: if it cannot be read.
    ManifestError: if its manifest is damaged or too new.
  """
  item = orbax_items.find(location)
  if item is None:
    return None
  shapes = _shapes(item, location)
  if MANIFEST not in shapes:
    return None
  array = _arrays(item, [MANIFEST], location)[MANIFEST]
  manifest = manifest_lib.from_bytes(array, location)
  return DeltaCheckpoint(location, item, manifest, shapes)


def must_open(location: str) -> DeltaCheckpoint:
  """Opens a checkpoint that holds a delta, or raises if it holds none.

  Args:
    location: such as MODEL_DIR/checkpoint_1000; path or URL.

  Returns:
    The checkpoint.

  Raises:
    ManifestError: if it is no delta checkpoint.
  """
  checkpoint = open_checkpoint(location)
  if checkpoint is not None:
    return checkpoint
  names = folders.checkpoint_names(location)
  if names:
    raise ManifestError(
      f'{location} holds several checkpoints; name one of '
      + ', '.join(folders.join(location, name) for name in names[-4:])
    )
  raise ManifestError(
    f'{location} is no delta checkpoint; what works is MODEL_DIR/checkpoint_N '
    'of a run with a method that has a subset'
  )


def read(
  checkpoint: DeltaCheckpoint, names: Sequence[str]
) -> dict[str, np.ndarray]:
  """Reads arrays of a checkpoint.

  Args:
    checkpoint: opened.
    names: paths, as in its `shapes`.

  Returns:
    Arrays by path.
  """
  return _arrays(checkpoint.item, names, checkpoint.location)


class CheckpointBytes(NamedTuple):
  """How large the parts of a checkpoint are (bytes).

  Attributes:
    delta: positions, counts and values, as arrays.
    inner_state: the inner optimizer's arrays.
    other_state: everything else in the item, as arrays.
    state_on_disk: of the item's files, which are compressed.
    dataset_on_disk: of the files that say where the input stands.
  """

  delta: int
  inner_state: int
  other_state: int
  state_on_disk: int
  dataset_on_disk: int


def checkpoint_bytes(checkpoint: DeltaCheckpoint) -> CheckpointBytes:
  """Returns how large the parts of a checkpoint are.

  Args:
    checkpoint: opened, on this machine.

  Returns:
    Bytes of each part.
  """
  arrays = array_bytes(checkpoint.shapes)
  state = pathlib.Path(checkpoint.item)
  return CheckpointBytes(
    arrays['delta'],
    arrays['inner'],
    arrays['other'],
    _on_disk(state),
    _on_disk(state.parent / 'dataset'),
  )


def array_bytes(shapes: Mapping[str, Any]) -> dict[str, int]:
  """Returns how large the arrays of a checkpoint are together.

  Args:
    shapes: shape and dtype of every array, by its path in the checkpoint.

  Returns:
    Bytes of the 'delta', of the 'inner' optimizer's state and of all 'other'
    arrays.

  Example:
    >>> step = jax.ShapeDtypeStruct((), np.dtype('int32'))
    >>> array_bytes({'state/step': step})
    {'delta': 0, 'inner': 0, 'other': 4}
  """
  sizes = {'delta': 0, 'inner': 0, 'other': 0}
  for path, leaf in shapes.items():
    group = 'other'
    if path.startswith(('target/', 'state/positions/', 'state/counts/')):
      group = 'delta'
    elif path.startswith('state/inner/'):
      group = 'inner'
    size = int(np.prod(leaf.shape, dtype=np.int64))
    sizes[group] += size * np.dtype(leaf.dtype).itemsize
  return sizes


def _on_disk(folder: pathlib.Path) -> int:
  return sum(f.stat().st_size for f in folder.rglob('*') if f.is_file())


def _shapes(item: str, location: str) -> dict[str, jax.ShapeDtypeStruct]:
  return {
    path: jax.ShapeDtypeStruct(tuple(leaf.shape or ()), np.dtype(leaf.dtype))
    for path, leaf in paths.flatten(
      orbax_items.metadata(item, location)
    ).items()
    if getattr(leaf, 'dtype', None) is not None
  }


def _arrays(
  item: str, names: Sequence[str], location: str
) -> dict[str, np.ndarray]:
  import orbax.checkpoint as ocp

  arguments: Any = {n: ocp.RestoreArgs(restore_type=np.ndarray) for n in names}
  restored = orbax_items.restore(item, paths.unflatten(arguments), location)
  return paths.flatten(restored)
