"""How many positions deltas have in common.

Source: DST, appendix E, equation 9.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from dst_t5x.core import silos
from dst_t5x.delta.types import (
  DeltaError,
  ShapeMismatchError,
  SubsetDelta,
  WrongSeedError,
)


def overlap(
  counts: Mapping[str, Int64[np.ndarray, 'd d']],
) -> Float64[np.ndarray, 'd d']:
  """Returns which share of every subset lies in every other.

    overlap[a, b] = |A ∩ B| / |A|

  Args:
    counts: of common positions by parameter, as `common` returns them; all of
      them are added up first.

  Returns:
    A fraction for every pair: 1 on the diagonal, and in a row of NaN if that
    subset is empty. Not symmetric unless the subsets are of equal size.

  Raises:
    DeltaError: if there are no parameters.

  Example:
    >>> overlap({'scale': np.int64([[4, 1], [1, 2]])})
    array([[1.  , 0.25],
           [0.5 , 1.  ]])

  Source: DST, equation 9.
  """
  both = total(counts)
  sizes = np.diagonal(both)[:, None]
  whole = np.full(both.shape, np.nan)
  return np.divide(both, sizes, out=whole, where=sizes > 0)


def total(
  counts: Mapping[str, Int64[np.ndarray, 'd d']],
) -> Int64[np.ndarray, 'd d']:
  """Returns how many positions every two deltas have in common in all.

  Args:
    counts: by parameter, as `common` returns them.

  Returns:
    Their sum (count).

  Raises:
    DeltaError: if there are no parameters.

  Example:
    >>> total({'a': np.int64([[1]]), 'b': np.int64([[2]])})
    array([[3]])
  """
  if not counts:
    raise DeltaError('there are no parameters to compare subsets in')
  return np.sum(list(counts.values()), axis=0)


def common(
  deltas: Sequence[SubsetDelta],
) -> dict[str, Int64[np.ndarray, 'd d']]:
  """Returns how many positions every two deltas have in common.

  Args:
    deltas: one or more, of the same seed.

  Returns:
    |A ∩ B| (count) for every pair, by path; sizes on the diagonal. Parameters
    that no delta knows are left out.

  Raises:
    WrongSeedError: if the seeds differ.
    ShapeMismatchError: if a parameter has several shapes.
    DeltaError: if there are no deltas.

  Example:
    >>> from dst_t5x import delta
    >>> seed = {'scale': np.float32([1.0, 2.0])}
    >>> a = delta.diff(seed, {'scale': np.float32([1.5, 2.0])})
    >>> b = delta.diff(seed, {'scale': np.float32([1.5, 3.0])})
    >>> common([a, b])['scale'].tolist()
    [[1, 1], [1, 2]]
  """
  _check(deltas)
  found = {}
  for path in sorted({path for delta in deltas for path in delta.entries}):
    held = [
      delta.entries[path].positions
      if path in delta.entries
      else np.empty(0, np.int64)
      for delta in deltas
    ]
    counts = np.diag([positions.size for positions in held])
    for a in range(len(held)):
      for b in range(a):
        both = np.intersect1d(held[a], held[b], assume_unique=True).size
        counts[a, b] = counts[b, a] = both
    found[path] = counts
  return found


def by_module(
  counts: Mapping[str, Int64[np.ndarray, 'd d']],
) -> dict[str, dict[str, Int64[np.ndarray, 'd d']]]:
  """Returns the counts sorted by module, layers put together.

  Args:
    counts: by path, as `common` returns them.

  Returns:
    For every module in which a delta has positions, its parameters' counts.

  Example:
    >>> one = np.int64([[3]])
    >>> found = by_module({f'encoder/layers_{i}/mlp/wo': one for i in (0, 1)})
    >>> {module: len(parts) for module, parts in found.items()}
    {'encoder/mlp': 2}
  """
  # The name of a module does not depend on shapes.
  assigned = silos.assign(dict.fromkeys(counts, ()), scheme='module')
  found: dict[str, dict[str, np.ndarray]] = {}
  for path, placement in assigned.placements.items():
    if counts[path].any():
      name = assigned.names[placement.silos[0]]
      found.setdefault(name, {})[path] = counts[path]
  return found


def _check(deltas: Sequence[SubsetDelta]) -> None:
  if not deltas:
    raise DeltaError('there are no deltas to compare; give at least one')
  seeds = sorted({delta.info.seed_fingerprint for delta in deltas})
  if len(seeds) > 1:
    raise WrongSeedError(
      f'the deltas were made from different seeds, {" and ".join(seeds)}: '
      'their positions cannot be compared'
    )
  shapes: dict[str, tuple[int, ...]] = {}
  for delta in deltas:
    for path, entry in delta.entries.items():
      if shapes.setdefault(path, entry.shape) != entry.shape:
        raise ShapeMismatchError(
          f'{path!r} has shape {shapes[path]} in one delta and {entry.shape} '
          'in another'
        )
