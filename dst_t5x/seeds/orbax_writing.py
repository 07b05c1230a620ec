"""Orbax checkpoints as T5X writes and restores them."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from dst_t5x.arrays import atomic, paths
from dst_t5x.seeds import targets


def write(
  params: Mapping[str, Any],
  path: str | os.PathLike[str],
  *,
  step: int | None = None,
  config: Mapping[str, Any] | None = None,
) -> str:
  """Writes a checkpoint that T5X restores, all of it or nothing.

  It holds no state of an optimizer. To train from it, T5X has to start one:
  `utils.RestoreCheckpointConfig` with `fallback_to_scratch = True` and
  `assignment_map = ((r'state/param_states.*', None),)`.

  Args:
    params: nested dict of NumPy or JAX arrays.
    path: `…/checkpoint_<step>`, or the folder to make that in.
    step: of the checkpoint; None for the one in the name, or 0.
    config: not kept, as this layout has no place for it.

  Returns:
    Path of the checkpoint.

  Raises:
    SeedError: if something is there already, or cannot be stored.
    OSError: if it cannot be written.

  Example:
    >>> import tempfile
    >>> from dst_t5x.seeds import orbax_layout as orbax
    >>> with tempfile.TemporaryDirectory() as d:
    ...   where = write({'a': np.ones(2)}, f'{d}/checkpoint_7')
    ...   orbax.open_source(where).step
    7
  """
  del config
  flat = targets.leaves(params, path)
  _, step = targets.checkpoint(path, step)
  state = {'target': paths.unflatten(flat), 'state': {'step': np.int32(step)}}
  return write_state(path, step, state)


def write_state(
  path: str | os.PathLike[str], step: int, state: Mapping[str, Any]
) -> str:
  """Writes the arrays of a train state as T5X does, all of them or nothing.

  Args:
    path: `…/checkpoint_<step>`, or the folder to make that in.
    step: of the checkpoint.
    state: nested dict of arrays, with 'target' and 'state' as T5X has them.

  Returns:
    Path of the checkpoint.

  Raises:
    SeedError: if something is there already.
    OSError: if it cannot be written.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as d:
    ...   where = write_state(d, 7, {'target': {'a': np.ones(2)}})
    ...   os.path.basename(where), 'state' in os.listdir(where)
    ('checkpoint_7', True)
  """
  target, step = targets.checkpoint(path, step)
  target.parent.mkdir(parents=True, exist_ok=True)
  with atomic.directory(target) as temporary:
    # Orbax makes the folder of the checkpoint itself, with a name of its own
    # until it is complete.
    work = temporary / 'work'
    _save(work, step, state)
    (made,) = work.iterdir()
    for item in made.iterdir():
      item.rename(temporary / item.name)
    made.rmdir()
    work.rmdir()
  return str(target)


def _save(folder: Any, step: int, state: Mapping[str, Any]) -> None:
  import orbax.checkpoint as ocp
  from etils import epath

  options = ocp.CheckpointManagerOptions(
    step_prefix='checkpoint', enable_async_checkpointing=False, create=True
  )
  handlers = {'state': ocp.PyTreeCheckpointHandler(use_ocdbt=True)}
  with ocp.CheckpointManager(
    epath.Path(folder), options=options, item_handlers=handlers
  ) as manager:
    manager.save(
      step, args=ocp.args.Composite(state=ocp.args.PyTreeSave(dict(state)))
    )
