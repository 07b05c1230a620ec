"""What has to be written to put one delta in another's place."""

from collections.abc import Mapping

import numpy as np

from dst_t5x.delta.types import SubsetDelta

# Flat positions and the values to put there, by path.
Writes = dict[str, tuple[np.ndarray, np.ndarray]]


def merged(
  old: SubsetDelta | None,
  seeds: Mapping[str, np.ndarray],
  new: SubsetDelta | None,
) -> Writes:
  """Returns the seed's values where a delta was, and over them the new ones.

  Args:
    old: the delta that is applied, if any.
    seeds: the seed's values at its positions, by path.
    new: the delta to apply, if any.

  Returns:
    Positions, none twice and not sorted, and values; nothing for parameters
    that neither changes.

  Example:
    >>> from dst_t5x import delta
    >>> seed = {'a': np.float32([1.0, 2.0])}
    >>> old = delta.diff(seed, {'a': np.float32([3.0, 4.0])})
    >>> new = delta.diff(seed, {'a': np.float32([1.0, 5.0])})
    >>> merged(old, seed, new)
    {'a': (array([0, 1]), array([1., 5.], dtype=float32))}
  """
  writes: Writes = {}
  for path, entry in old.entries.items() if old else ():
    if entry.size:
      writes[path] = entry.positions, seeds[path]
  for path, entry in new.entries.items() if new else ():
    if not entry.size:
      continue
    positions, values = entry.positions, entry.values
    if path in writes:
      back, held = writes[path]
      alone = ~np.isin(back, positions, assume_unique=True)
      positions = np.concatenate([back[alone], positions])
      values = np.concatenate([held[alone], values])
    writes[path] = positions, values
  return writes
