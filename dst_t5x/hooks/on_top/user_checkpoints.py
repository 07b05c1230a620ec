"""What a user's own configuration of T5X restores: a seed or a checkpoint."""

import dataclasses
from typing import Any

from dst_t5x.checkpoint import delta_checkpoint
from dst_t5x.hooks import steps


class OnTopError(ValueError):
  """A configuration of T5X that no method can be put on top of."""


def restored_path(checkpoint_cfg: Any) -> str:
  """Returns the checkpoint that a configuration of T5X begins a run with.

  Args:
    checkpoint_cfg: T5X's `CheckpointConfig`.

  Returns:
    Its location.

  Raises:
    OnTopError: if there is none, or reading it takes more than its location.
  """
  cfg = checkpoint_cfg.restore
  if cfg is None or not cfg.path:
    raise OnTopError(
      'this configuration starts from random parameters, and a method needs a '
      'seed: set INITIAL_CHECKPOINT_PATH to the checkpoint to fine-tune'
    )
  renames = any(name is not None for _, name in cfg.assignment_map or ())
  # T5X puts the map before the functions that the user gives.
  own = len(cfg.state_transformation_fns) - (cfg.assignment_map is not None)
  if renames or own:
    what = 'assignment_map' if renames else 'state_transformation_fns'
    raise OnTopError(
      f'this configuration restores {cfg.path!r} through '
      f'RestoreCheckpointConfig.{what}, and a seed is read as it is: let stock '
      'T5X restore and save it once, and set INITIAL_CHECKPOINT_PATH to that '
      'checkpoint'
    )
  path = _one_path(cfg.path)
  if cfg.mode == 'latest':
    return delta_checkpoint.latest(path) or path
  return path


def without_seed(checkpoint_cfg: Any) -> Any:
  """Returns T5X's checkpoint configuration without what begins the run.

  T5X would restore the seed as if it were a checkpoint of this run; our
  initializer reads it instead.

  Args:
    checkpoint_cfg: T5X's `CheckpointConfig`.

  Returns:
    The same, with `restore = None`.
  """
  return dataclasses.replace(checkpoint_cfg, restore=None)


def checkpoint_path(restore_checkpoint_cfg: Any) -> str:
  """Returns the checkpoint that T5X evaluates or infers from.

  Args:
    restore_checkpoint_cfg: T5X's `RestoreCheckpointConfig`.

  Returns:
    Its location, or that of the folder with all of a run's.

  Raises:
    OnTopError: if it names several.
  """
  return _one_path(restore_checkpoint_cfg.path)


def first_step(checkpoint_cfg: Any, seed_path: str | None = None) -> int:
  """Returns the step at which a run begins, in T5X's count.

  Args:
    checkpoint_cfg: T5X's `CheckpointConfig`; what it restores is the seed.
    seed_path: of the seed, instead of that.

  Returns:
    The seed's own step; 0 if it tells none.

  Raises:
    OnTopError, SeedError: if there is no seed, or it cannot be read.
  """
  return steps.of_seed(seed_path or restored_path(checkpoint_cfg))


def _one_path(path: Any) -> str:
  if isinstance(path, str):
    return path
  paths = list(path)
  if len(paths) != 1:
    raise OnTopError(
      f'one checkpoint is read at a time, and path = {paths!r} names '
      f'{len(paths)}'
    )
  return paths[0]
