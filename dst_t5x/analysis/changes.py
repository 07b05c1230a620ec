"""Which parameters changed, counted from outside.

Nothing here looks at a method's own masks or thresholds: two trees of
parameters are compared bit by bit on the host.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dst_t5x.arrays.bit_types import bits
from dst_t5x.arrays.paths import named_leaves
from dst_t5x.core.silos import Placement, Silos, module_of


class Changes(NamedTuple):
  """Counts of parameters whose bits differ.

  Attributes:
    total: number of parameters (count).
    changed: those that differ (count).
    per_silo: those that differ, by silo name (count).
    overrun: by how much the worst silo exceeds its budget (count), at least 0.
  """

  total: int
  changed: int
  per_silo: dict[str, int]
  overrun: int


def changed_positions(seed: np.ndarray, tuned: np.ndarray) -> np.ndarray:
  """Returns where the bits of two arrays differ.

  Args:
    seed: any shape, floating.
    tuned: same shape and dtype.

  Returns:
    bool of that shape.

  Raises:
    ValueError: if shape or dtype differ.

  Example:
    >>> changed_positions(np.float32([0.0, 1.0]), np.float32([-0.0, 1.0]))
    array([ True, False])
  """
  if seed.shape != tuned.shape or seed.dtype != tuned.dtype:
    raise ValueError(
      f'cannot compare {seed.dtype}{seed.shape} with {tuned.dtype}{tuned.shape}'
    )
  differ = bits(np.ravel(seed)) != bits(np.ravel(tuned))
  return differ.reshape(seed.shape)


def count_changes(
  seed: Any, tuned: Any, silos: Silos, budgets: tuple[int, ...]
) -> Changes:
  """Returns how many parameters of each silo differ from the seed.

  Args:
    seed: tree of host arrays.
    tuned: the same tree after training.
    silos: the partition.
    budgets: k of every silo (count).

  Returns:
    The counts.

  Raises:
    ValueError: if the trees differ in names, shapes or dtypes.
  """
  before, after = _same_leaves(seed, tuned)
  counts = [0] * len(silos.names)
  for path, placement in silos.placements.items():
    where = changed_positions(np.asarray(before[path]), np.asarray(after[path]))
    for silo, number in _by_silo(where, placement):
      counts[silo] += number
  return Changes(
    total=sum(silos.sizes),
    changed=sum(counts),
    per_silo=dict(zip(silos.names, counts, strict=True)),
    overrun=max([0, *(c - k for c, k in zip(counts, budgets, strict=True))]),
  )


def share_per_module(seed: Any, tuned: Any) -> Mapping[str, tuple[int, int]]:
  """Returns changed and all parameters of every module, layers put together.

  Args:
    seed: tree of host arrays.
    tuned: the same tree after training.

  Returns:
    (changed, size) counts by module, in the order of the tree.
  """
  before, after = _same_leaves(seed, tuned)
  counts: dict[str, tuple[int, int]] = {}
  for path, x in before.items():
    where = changed_positions(np.asarray(x), np.asarray(after[path]))
    module = module_of(path)
    changed, size = counts.get(module, (0, 0))
    counts[module] = changed + int(where.sum()), size + where.size
  return counts


def _same_leaves(seed: Any, tuned: Any) -> tuple[Any, Any]:
  """Returns the leaves of two trees by path, which must be the same paths."""
  before, after = named_leaves(seed), named_leaves(tuned)
  if set(before) != set(after):
    raise ValueError(
      f'the trees differ in {sorted(set(before) ^ set(after))[:5]}'
    )
  return before, after


def _by_silo(where: np.ndarray, placement: Placement) -> list[tuple[int, int]]:
  if placement.axis is None:
    return [(placement.silos[0], int(where.sum()))]
  slices = np.moveaxis(where, placement.axis, 0)
  return [
    (silo, int(slices[i].sum())) for i, silo in enumerate(placement.silos)
  ]
