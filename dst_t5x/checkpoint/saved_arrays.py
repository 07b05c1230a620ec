"""Packed silos as the arrays of a checkpoint, by kind and silo, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dst_t5x.arrays.paths import named_leaves
from dst_t5x.checkpoint import packing
from dst_t5x.checkpoint.delta_checkpoint import key
from dst_t5x.checkpoint.packing import Packed
from dst_t5x.core.silos import Placement, Silos


def to_arrays(
  silos: Silos, packed: Sequence[Packed], prefix: str = ''
) -> dict[str, Any]:
  """Returns the arrays of all silos with a budget.

  Args:
    silos: the partition.
    packed: one for every silo; empty if nothing is kept.
    prefix: of the kinds' names.

  Returns:
    Arrays by kind ('positions', 'values', 'counts') and silo.
  """
  arrays: dict[str, dict[str, Any]] = {}
  for name, silo in zip(silos.names if packed else (), packed, strict=True):
    if not silo.positions.shape[0]:
      continue
    for kind in ('positions', 'values', 'counts'):
      leaf = getattr(silo, kind)
      if not isinstance(leaf, tuple):
        arrays.setdefault(prefix + kind, {})[key(name)] = leaf
  return arrays


def from_arrays(
  silos: Silos,
  budgets: Sequence[int],
  state_dict: Mapping[str, Any],
  prefix: str = '',
) -> tuple[Packed, ...]:
  """Returns the packed silos of a checkpoint's arrays.

  Args:
    silos: the partition.
    budgets: k of every silo (count).
    state_dict: the checkpoint's arrays, nested.
    prefix: of the kinds' names; values are kept only without one.

  Returns:
    One for every silo.
  """
  saved = state_dict['state']
  entries = packing.entries(silos)
  packed = []
  for name, k, inside in zip(silos.names, budgets, entries, strict=True):
    if not k:
      nothing = jnp.zeros(0, jnp.int32)
      packed.append(
        packing.Packed(nothing, (), jnp.zeros(len(inside), jnp.int32))
      )
      continue
    packed.append(
      packing.Packed(
        saved[prefix + 'positions'][key(name)],
        () if prefix else state_dict['target'][key(name)],
        saved[prefix + 'counts'][key(name)],
      )
    )
  return tuple(packed)


def silos_of(manifest: Mapping[str, Any]) -> tuple[Silos, tuple[int, ...]]:
  """Returns the silos that a manifest tells of, and their budgets.

  Args:
    manifest: of a checkpoint.

  Returns:
    The silos, and k of each (count).
  """
  ids: dict[str, list[int]] = {path: [] for path in manifest['parameters']}
  axes: dict[str, int | None] = {}
  for number, (_, _, inside) in enumerate(manifest['silos']):
    for path, index, axis in inside:
      assert index is None or index == len(ids[path])
      ids[path].append(number)
      axes[path] = axis
  shapes = {p: tuple(s) for p, (_, s) in manifest['parameters'].items()}
  sizes = [0] * len(manifest['silos'])
  for path, numbers in ids.items():
    for number in numbers:
      sizes[number] += int(np.prod(shapes[path], dtype=np.int64)) // len(
        numbers
      )
  return (
    Silos(
      tuple(name for name, _, _ in manifest['silos']),
      tuple(sizes),
      {p: Placement(tuple(n), axes[p]) for p, n in ids.items()},
    ),
    tuple(k for _, k, _ in manifest['silos']),
  )


def like(tree: Any, named: Mapping[str, Any]) -> Any:
  """Returns a tree of the same structure with leaves by path."""
  return jax.tree.unflatten(
    jax.tree.structure(tree), [named[path] for path in named_leaves(tree)]
  )
