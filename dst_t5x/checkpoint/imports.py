"""From a delta file to a delta checkpoint that T5X infers from.

The layout is told in `delta_checkpoint`. Every parameter is a silo of its own,
with as many places as it has positions; there is no state of an optimizer.
"""

import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dst_t5x import delta, seeds
from dst_t5x.arrays import paths
from dst_t5x.arrays.bit_types import bits
from dst_t5x.checkpoint import delta_checkpoint, manifest
from dst_t5x.core import plans, schedules, silos, thresholds
from dst_t5x.core.methods import Method
from dst_t5x.delta.file import container
from dst_t5x.delta.types import DeltaError, SubsetDelta
from dst_t5x.seeds import orbax_items, targets
from dst_t5x.seeds import sharded as seed_hook


class Imported(NamedTuple):
  """What was written.

  Attributes:
    out: the checkpoint.
    step: of the checkpoint, in T5X's count.
    positions: in the delta (count).
    seed: where T5X will look for the seed.
    seed_fingerprint: of the seed.
    result_fingerprint: of the adapted parameters.
  """

  out: str
  step: int
  positions: int
  seed: str
  seed_fingerprint: str
  result_fingerprint: str


def write(
  file: str | os.PathLike[str],
  out: str | os.PathLike[str],
  *,
  seed: str,
) -> Imported:
  """Writes a delta as a checkpoint of T5X, all of it or nothing.

  Args:
    file: the delta.
    out: `…/checkpoint_<step>`, or the folder to make that in; the step is the
      seed's and the delta's together.
    seed: path of the seed, or 'bundled'.

  Returns:
    What was written.

  Raises:
    DeltaError: if the delta cannot be read, does not fit the seed, or cannot
      be stored.
    SeedError: if the seed cannot be read, or something is there already.
    OSError: if it cannot be written.
  """
  location = seed_hook.absolute(seed)
  opened = seeds.open_source(location)
  read = seeds.read(location)
  found = container.read(file, seed=read.params)
  delta.apply(read.params, found)  # checks all that can be checked
  step = (opened.step or 0) + found.info.step
  targets.checkpoint_folder(out, step)
  flat = paths.flatten(read.params)
  about = _manifest(
    found,
    flat,
    {
      'location': location,
      'layout': opened.layout,
      'step': opened.step,
      'fingerprint': read.fingerprint,
    },
  )
  written = orbax_items.write(
    out, step, _state(found, step, manifest.to_bytes(about), os.fspath(file))
  )
  _check(found, written)
  return Imported(
    written,
    step,
    found.size,
    location,
    read.fingerprint,
    found.info.result_fingerprint,
  )


def _manifest(
  found: SubsetDelta, flat: Mapping[str, Any], seed: Mapping[str, Any]
) -> dict[str, Any]:
  shapes = {path: tuple(leaf.shape) for path, leaf in flat.items()}
  # How the subset was chosen is not known any more, only by whom.
  method = Method(
    name=found.info.method,
    score=None,
    schedule=schedules.every_step(),
    silos='tensor',
    mask_gradients=False,
    threshold=thresholds.exact,
  )
  entries = found.entries
  plan = plans.Plan(
    method=method,
    silos=silos.assign(shapes, scheme='tensor'),
    budgets=tuple(entries[p].size if p in entries else 0 for p in shapes),
    eligible=None,
    partitioning=None,
  )
  about = manifest.make(
    plan,
    paths.unflatten(flat),
    epsilon=found.info.epsilon,
    silo_scheme=found.info.silo_rule,
    inner_state='none',
    keep_first=False,
    seed=seed,
  )
  return {**about, 'budget': found.info.budget}


def _state(
  found: SubsetDelta, step: int, about: np.ndarray, file: str
) -> dict[str, Any]:
  entries = {path: e for path, e in found.entries.items() if e.size}
  keys = {path: delta_checkpoint.key(path) for path in entries}
  if not entries:
    raise DeltaError(
      f'{file}: the delta is empty; a checkpoint of T5X would hold nothing: '
      'infer from the seed itself'
    )
  if len(set(keys.values())) < len(keys):
    raise DeltaError(
      f'{file}: two parameters have the same name with "." for "/", which a '
      'checkpoint of T5X cannot hold'
    )
  for path, entry in entries.items():
    if math.prod(entry.shape) > 2**31:
      raise DeltaError(
        f'{file}: {path!r} has {math.prod(entry.shape)} entries; positions in '
        f'a checkpoint of T5X are 32-bit, for at most {2**31}'
      )
  return {
    'target': {keys[p]: e.values for p, e in entries.items()},
    'state': {
      'step': np.int32(step),
      'count': np.int32(found.info.step),
      'manifest': about,
      'positions': {
        keys[p]: e.positions.astype(np.int32) for p, e in entries.items()
      },
      'counts': {
        keys[p]: np.array([e.size], np.int32) for p, e in entries.items()
      },
    },
  }


def _check(found: SubsetDelta, written: str) -> None:
  """Checks that the checkpoint says what the file says."""
  changed = delta_checkpoint.changed(delta_checkpoint.must_open(written))
  for path, (positions, values) in changed.items():
    entry = found.entries.get(path)
    wanted = ([], []) if entry is None else (entry.positions, entry.values)
    if not (
      np.array_equal(positions, wanted[0])
      and np.array_equal(
        bits(values), bits(np.asarray(wanted[1], values.dtype))
      )
    ):
      raise DeltaError(
        f'{written}: {path!r} was not written as it was read; delete it'
      )
