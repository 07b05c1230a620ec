"""Packed silos as the arrays of a checkpoint, by path, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from dst_t5x.checkpoint import packing
from dst_t5x.checkpoint.delta_checkpoint import silo_paths
from dst_t5x.checkpoint.packing import Packed
from dst_t5x.core.silos import Silos


def to_arrays(
  silos: Silos, packed: Sequence[Packed], prefix: str = ''
) -> dict[str, Any]:
  """Returns the arrays of all silos with a budget.

  Args:
    silos: the partition.
    packed: one for every silo; empty if nothing is kept.
    prefix: of the arrays' folders; see `delta_checkpoint.silo_paths`.

  Returns:
    Arrays by their path in a checkpoint.
  """
  arrays: dict[str, Any] = {}
  for name, silo in zip(silos.names if packed else (), packed, strict=True):
    if not silo.positions.shape[0]:
      continue
    paths = silo_paths(name, prefix)
    arrays[paths.positions] = silo.positions
    arrays[paths.counts] = silo.counts
    if not isinstance(silo.values, tuple):
      arrays[paths.values] = silo.values
  return arrays


def from_arrays(
  silos: Silos,
  budgets: Sequence[int],
  arrays: Mapping[str, Any],
  prefix: str = '',
) -> tuple[Packed, ...]:
  """Returns the packed silos of a checkpoint's arrays.

  Args:
    silos: the partition.
    budgets: k of every silo (count).
    arrays: of the checkpoint, by path.
    prefix: of the arrays' folders; only those without one have values.

  Returns:
    One for every silo.
  """
  packed = []
  for name, k, parts in zip(
    silos.names, budgets, packing.silo_parts(silos), strict=True
  ):
    if not k:
      nothing = jnp.zeros(0, jnp.int32)
      packed.append(Packed(nothing, (), jnp.zeros(len(parts), jnp.int32)))
      continue
    paths = silo_paths(name, prefix)
    packed.append(
      Packed(
        arrays[paths.positions],
        () if prefix else arrays[paths.values],
        arrays[paths.counts],
      )
    )
  return tuple(packed)
