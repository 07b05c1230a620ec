"""Delta checkpoints of T5X runs, read without T5X.

  MODEL_DIR/checkpoint_N/
    state/      one Orbax item:
      target/SILO             [k] values of the parameters in the subset
      state/positions/SILO    int32[k] where they are, flat, within one entry
      state/counts/SILO       int32[entries] how many belong to each entry
      state/manifest          uint8[n] JSON: method, silos, seed
      state/step, …           what a bit-identical resume needs
      state/inner/…           the inner optimizer's state
    dataset/    where the input stands, if it was saved

A silo's name stands with '.' for '/'; silos whose budget is 0 are left out.
"""

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
    item: folder of its Orbax item.
    manifest: what it says about itself.
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


def latest(location: str) -> str | None:
  """Returns the newest checkpoint in a folder.

  Args:
    location: a run's MODEL_DIR, or a checkpoint itself.

  Returns:
    The checkpoint; `location` if it is one, None if there is none.

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
    The checkpoint; None if it is a checkpoint of whole parameters, or none.

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
  """Opens a checkpoint that holds a delta, or says what it is instead.

  Args:
    location: such as MODEL_DIR/checkpoint_1000; path or URL.

  Returns:
    The checkpoint.

  Raises:
    ManifestError: if it is no delta checkpoint.
  """
  found = open_checkpoint(location)
  if found is not None:
    return found
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


def changed(
  checkpoint: DeltaCheckpoint,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Reads the delta.

  Args:
    checkpoint: opened.

  Returns:
    For every parameter int64[n] flat positions, sorted, and the values there.

  Raises:
    ManifestError: if counts, positions or shapes contradict each other.
  """
  shapes = {
    path: (dtype, tuple(shape))
    for path, (dtype, shape) in checkpoint.manifest['parameters'].items()
  }
  found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {
    p: [] for p in shapes
  }
  arrays = _delta_arrays(checkpoint)
  for name, budget, inside in checkpoint.manifest['silos']:
    if not budget:
      continue
    values, positions, counts = (arrays[each] for each in _names(name))
    if counts.shape != (len(inside),) or not (
      counts.min() >= 0 and counts.sum() <= budget == positions.size
    ):
      raise ManifestError(
        f'{checkpoint.location}: the counts of silo {name!r} contradict its '
        f'budget of {budget}'
      )
    start = 0
    for (path, index, axis), count in zip(inside, counts, strict=True):
      own = slice(start, start + int(count))
      start += int(count)
      flat = _whole(positions[own], shapes[path][1], index, axis, checkpoint)
      found[path].append((flat, values[own]))
  return {
    path: _merged(parts, shapes[path][0]) for path, parts in found.items()
  }


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


def _names(silo: str) -> tuple[str, str, str]:
  """Returns where values, positions and counts of a silo are."""
  name = key(silo)
  return (
    f'target/{name}',
    f'state/positions/{name}',
    f'state/counts/{name}',
  )


def _delta_arrays(checkpoint: DeltaCheckpoint) -> dict[str, np.ndarray]:
  """Reads the arrays of all silos at once."""
  silos = checkpoint.manifest['silos']
  names = [each for silo, k, _ in silos if k for each in _names(silo)]
  missing = [each for each in names if each not in checkpoint.shapes]
  if missing:
    raise ManifestError(f'{checkpoint.location} lacks {", ".join(missing)}')
  return read(checkpoint, names)


def _whole(
  positions: np.ndarray,
  shape: tuple[int, ...],
  index: int | None,
  axis: int | None,
  checkpoint: DeltaCheckpoint,
) -> np.ndarray:
  """Returns positions in the whole tensor, from those in one slice of it."""
  inner = [size for d, size in enumerate(shape) if d != axis]
  size = int(np.prod(inner, dtype=np.int64))
  if positions.size and not 0 <= positions.min() <= positions.max() < size:
    raise ManifestError(f'{checkpoint.location}: a position is out of range')
  if axis is None:
    return positions.astype(np.int64)
  at = list(np.unravel_index(positions.astype(np.int64), inner))
  at.insert(axis, np.full(positions.shape, index, np.int64))
  return np.ravel_multi_index(tuple(at), shape)


def _merged(
  parts: Sequence[tuple[np.ndarray, np.ndarray]], dtype: str
) -> tuple[np.ndarray, np.ndarray]:
  positions = np.concatenate([np.empty(0, np.int64), *(p for p, _ in parts)])
  values = np.concatenate(
    [np.empty(0, np.dtype(dtype)), *(v for _, v in parts)]
  )
  order = np.argsort(positions, kind='stable')
  return positions[order], values[order]
