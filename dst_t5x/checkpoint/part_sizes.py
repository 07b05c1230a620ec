"""How large the parts of a delta checkpoint are."""

import pathlib
from typing import NamedTuple

import numpy as np

from dst_t5x.checkpoint.delta_checkpoint import DeltaCheckpoint


class Sizes(NamedTuple):
  """Bytes of a checkpoint's parts.

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


def sizes(checkpoint: DeltaCheckpoint) -> Sizes:
  """Returns how large the parts of a checkpoint are.

  Args:
    checkpoint: opened, on this machine.

  Returns:
    Bytes.
  """
  groups = {'delta': 0, 'inner': 0, 'other': 0}
  for path, leaf in checkpoint.shapes.items():
    bytes_ = int(np.prod(leaf.shape, dtype=np.int64)) * leaf.dtype.itemsize
    groups[group_of(path)] += bytes_
  state = pathlib.Path(checkpoint.item)
  return Sizes(
    groups['delta'],
    groups['inner'],
    groups['other'],
    _on_disk(state),
    _on_disk(state.parent / 'dataset'),
  )


def group_of(path: str) -> str:
  """Returns what an array of a checkpoint is for.

  Args:
    path: of the array.

  Returns:
    'delta', 'inner' or 'other'.

  Example:
    >>> group_of('target/encoder.mlp'), group_of('state/step')
    ('delta', 'other')
  """
  if path.startswith(('target/', 'state/positions/', 'state/counts/')):
    return 'delta'
  return 'inner' if path.startswith('state/inner/') else 'other'


def _on_disk(folder: pathlib.Path) -> int:
  return sum(f.stat().st_size for f in folder.rglob('*') if f.is_file())
