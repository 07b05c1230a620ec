"""Checkpoints of a run: the delta, and what a bit-identical resume needs.

  RUN/checkpoints/00000200/
    delta.safetensors    what differs from the seed, usable as it is
    state.safetensors    inner optimizer, counters, thresholds; a kept subset
                         as positions. The seed is not in it.
    dataset/             where the input stands
    checkpoint.json      step, seed, and the bytes of each part

A checkpoint is written beside its place, synced and renamed, so at any moment
each is whole or absent.
"""

import json
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy

from dst_t5x import delta as delta_lib
from dst_t5x.arrays import atomic
from dst_t5x.arrays.paths import named_leaves
from dst_t5x.delta import SubsetDelta
from dst_t5x.delta.file import container
from dst_t5x.standalone.train_state import TrainState

FOLDER = 'checkpoints'
DELTA = 'delta.safetensors'
_STATE = 'state.safetensors'
_DATASET = 'dataset'
_META = 'checkpoint.json'
_VERSION = 1


class CheckpointError(ValueError):
  """A checkpoint cannot be used, with the reason."""


class RunCheckpointBytes(NamedTuple):
  """Bytes of a checkpoint's parts, as they lie on disk.

  Attributes:
    delta: the delta's file (bytes).
    inner_state: inner optimizer, counters and thresholds (bytes).
    dataset_state: position of the input (bytes).
  """

  delta: int
  inner_state: int
  dataset_state: int


def steps(root: str | os.PathLike[str]) -> list[int]:
  """Returns the steps of all whole checkpoints of a run, ascending.

  Args:
    root: the run's directory.

  Returns:
    The steps (count); none if there is no checkpoint.
  """
  folder = pathlib.Path(root) / FOLDER
  if not folder.is_dir():
    return []
  return sorted(
    int(p.name) for p in folder.iterdir() if re.fullmatch(r'\d{8,}', p.name)
  )


def path_of(root: str | os.PathLike[str], step: int) -> pathlib.Path:
  """Returns where the checkpoint of a step lies.

  Args:
    root: the run's directory.
    step: its step (count).

  Returns:
    The directory.

  Example:
    >>> path_of('run', 200).as_posix()
    'run/checkpoints/00000200'
  """
  return pathlib.Path(root) / FOLDER / f'{step:08d}'


def save(
  root: str | os.PathLike[str],
  step: int,
  state: TrainState,
  delta: SubsetDelta,
  *,
  seed_location: str,
  save_dataset: Callable[[pathlib.Path], None],
  keep: int = 2,
) -> RunCheckpointBytes:
  """Writes a checkpoint, then removes all but the newest few.

  Args:
    root: the run's directory.
    step: steps taken (count).
    state: state of the run; it may lie on devices.
    delta: parameters against seed.
    seed_location: where the seed came from.
    save_dataset: writes the input's state into the directory it is given.
    keep: checkpoints to keep (count), this one included.

  Returns:
    Bytes of the parts.

  Raises:
    OSError: if it cannot be written; nothing is left behind then, and older
      checkpoints are untouched.
  """
  place = path_of(root, step)
  place.parent.mkdir(parents=True, exist_ok=True)
  if place.exists():
    return _part_bytes(place)
  with atomic.directory(place) as new:
    container.write(delta, new / DELTA)
    arrays = _state_arrays(state)
    safetensors.numpy.save_file(arrays, new / _STATE)
    (new / _DATASET).mkdir()
    save_dataset(new / _DATASET)
    written = _part_bytes(new)
    meta = {
      'version': _VERSION,
      'step': step,
      'seed': seed_location,
      'seed_fingerprint': delta.info.seed_fingerprint,
      'bytes': written._asdict(),
      'expected_state_bytes': sum(a.nbytes for a in arrays.values()),
    }
    (new / _META).write_text(json.dumps(meta, indent=2) + '\n', 'utf-8')
  for old in steps(root)[:-keep]:
    atomic.remove_directory(path_of(root, old))
  return written


def restore(
  root: str | os.PathLike[str],
  step: int,
  template: TrainState,
  *,
  seed_fingerprint: str,
  restore_dataset: Callable[[pathlib.Path], None],
) -> TrainState:
  """Returns the state of a checkpoint, bit for bit.

  Args:
    root: the run's directory.
    step: step of the checkpoint (count).
    template: a fresh state of the same run, whose parameters are the seed.
    seed_fingerprint: fingerprint of that seed.
    restore_dataset: brings the input to the state in the directory it is given.

  Returns:
    The state, placed like the template.

  Raises:
    CheckpointError: if the checkpoint is of another seed, version or kind of
      run, or is damaged.
  """
  place = path_of(root, step)
  meta = _read_meta(place)
  if meta['seed_fingerprint'] != seed_fingerprint:
    raise CheckpointError(
      f'checkpoint {str(place)!r} belongs to the seed '
      f'{meta["seed_fingerprint"]} ({meta["seed"]}), this run starts from '
      f'{seed_fingerprint}'
    )
  delta = container.read(place / DELTA)
  params = delta_lib.apply(template.params, delta)
  try:
    arrays = safetensors.numpy.load_file(place / _STATE)
  except (OSError, safetensors.SafetensorError) as error:
    raise CheckpointError(
      f'checkpoint {str(place)!r} is damaged: {_STATE}: {error}'
    ) from error
  restore_dataset(place / _DATASET)
  # In the same place as the template's, whatever `apply` returned.
  params = jax.tree.map(
    lambda new, old: jax.device_put(new, old.sharding), params, template.params
  )
  return _fill(template._replace(params=params), arrays, place)


def _state_arrays(state: TrainState) -> dict[str, np.ndarray]:
  """Returns everything but parameters and seed; masks as positions."""
  chosen = state.selective
  rest = chosen._replace(seed=(), masks=())
  arrays = {
    f'state/{path}': np.asarray(jax.device_get(x))
    for path, x in named_leaves(rest).items()
  }
  if chosen.masks != ():
    for path, mask in chosen.masks.items():
      positions = np.flatnonzero(np.asarray(jax.device_get(mask)))
      arrays[f'subset/{path}'] = positions.astype(np.int64)
  return arrays


def _fill(
  template: TrainState, arrays: dict[str, np.ndarray], place: pathlib.Path
) -> TrainState:
  chosen = template.selective
  rest = chosen._replace(seed=(), masks=())
  expected = {f'state/{p}': x for p, x in named_leaves(rest).items()}
  masks = chosen.masks if chosen.masks != () else {}
  names = {*expected, *(f'subset/{p}' for p in masks)}
  if names != set(arrays):
    raise CheckpointError(
      f'checkpoint {str(place)!r} is of another kind of run; it lacks '
      f'{sorted(names - set(arrays))[:3]} and has '
      f'{sorted(set(arrays) - names)[:3]} more'
    )
  leaves = []
  for path, wanted in expected.items():
    saved = arrays[path]
    if saved.shape != wanted.shape or saved.dtype != wanted.dtype:
      raise CheckpointError(
        f'checkpoint {str(place)!r}: {path} is {saved.dtype}{saved.shape}, '
        f'this run needs {wanted.dtype}{wanted.shape}'
      )
    leaves.append(jax.device_put(saved, wanted.sharding))
  filled = jax.tree.unflatten(jax.tree.structure(rest), leaves)
  new_masks: Any = ()
  if chosen.masks != ():
    new_masks = {
      path: jax.device_put(
        _mask(arrays[f'subset/{path}'], mask.shape, path, place), mask.sharding
      )
      for path, mask in masks.items()
    }
  return TrainState(
    template.params, filled._replace(seed=chosen.seed, masks=new_masks)
  )


def _mask(
  positions: np.ndarray, shape: tuple[int, ...], path: str, place: pathlib.Path
) -> np.ndarray:
  mask = np.zeros(shape, np.bool_)
  if positions.size and not 0 <= positions.min() <= positions.max() < mask.size:
    raise CheckpointError(
      f'checkpoint {str(place)!r}: a position of {path} is outside {shape}'
    )
  mask.reshape(-1)[positions] = True
  return mask


def _read_meta(place: pathlib.Path) -> dict[str, Any]:
  try:
    meta = json.loads((place / _META).read_text('utf-8'))
    version = meta['version']
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise CheckpointError(
      f'checkpoint {str(place)!r} has no usable {_META}: {error}'
    ) from error
  if version != _VERSION:
    raise CheckpointError(
      f'checkpoint {str(place)!r} is of version {version}; this program '
      f'reads version {_VERSION}'
    )
  return meta


def part_bytes(root: str | os.PathLike[str], step: int) -> RunCheckpointBytes:
  """Returns the bytes of a checkpoint's parts.

  Args:
    root: the run's directory.
    step: step of the checkpoint (count).

  Returns:
    The bytes, as they lie on disk.
  """
  return _part_bytes(path_of(root, step))


def _part_bytes(place: pathlib.Path) -> RunCheckpointBytes:
  return RunCheckpointBytes(
    delta=(place / DELTA).stat().st_size,
    inner_state=(place / _STATE).stat().st_size,
    dataset_state=sum(
      p.stat().st_size for p in (place / _DATASET).rglob('*') if p.is_file()
    ),
  )
