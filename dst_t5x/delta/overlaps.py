"""How many positions deltas have in common.

`overlap` compares whole deltas. For more detail, `overlap_counts` counts common
positions by parameter, `counts_by_module` groups these counts by module, and
`overlap_fractions` turns any of them into fractions.

Source: DST, appendix E, equation 9.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from dst_t5x.arrays import quoting
from dst_t5x.core import silos
from dst_t5x.delta.types import (
  DeltaError,
  ShapeMismatchError,
  SubsetDelta,
  WrongSeedError,
)


def overlap(deltas: Sequence[SubsetDelta]) -> Float64[np.ndarray, 'd d']:
  """Returns which fraction of every delta's subset lies in every other's.

    overlap[a, b] = |A ∩ B| / |A|

  Args:
    deltas: one or more, of the same seed.

  Returns:
    A fraction for every pair: 1 on the diagonal, or a row of NaN if that
    delta's subset is empty. The matrix is not symmetric unless the subsets are
    of equal size.

  Raises:
    WrongSeedError: if the seeds differ.
    ShapeMismatchError: if a parameter has several shapes.
    DeltaError: if there are no deltas, or no parameters in them.

  Example:
    >>> from dst_t5x import delta
    >>> seed = {'scale': np.float32([1.0, 2.0])}
    >>> a = delta.diff(seed, {'scale': np.float32([1.5, 2.0])})
    >>> b = delta.diff(seed, {'scale': np.float32([1.5, 3.0])})
    >>> overlap([a, b])
    array([[1. , 1. ],
           [0.5, 1. ]])

  Source: DST, equation 9.
  """
  return overlap_fractions(overlap_counts(deltas))


def overlap_counts(
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
    >>> overlap_counts([a, b])['scale'].tolist()
    [[1, 1], [1, 2]]
  """
  _check_comparable(deltas)
  counts_by_path = {}
  for path in sorted({path for delta in deltas for path in delta.entries}):
    subsets = [
      delta.entries[path].positions
      if path in delta.entries
      else np.empty(0, np.int64)
      for delta in deltas
    ]
    counts = np.diag([positions.size for positions in subsets])
    for a in range(len(subsets)):
      for b in range(a):
        both = np.intersect1d(subsets[a], subsets[b], assume_unique=True).size
        counts[a, b] = counts[b, a] = both
    counts_by_path[path] = counts
  return counts_by_path


def counts_by_module(
  counts: Mapping[str, Int64[np.ndarray, 'd d']],
) -> dict[str, dict[str, Int64[np.ndarray, 'd d']]]:
  """Returns counts grouped by module, all layers of a module together.

  Args:
    counts: by path, as `overlap_counts` returns them.

  Returns:
    For every module in which a delta has positions, the counts of its
    parameters by path.

  Example:
    >>> one = np.int64([[3]])
    >>> counts = {f'encoder/layers_{i}/mlp/wo': one for i in (0, 1)}
    >>> modules = counts_by_module(counts)
    >>> {module: len(counts) for module, counts in modules.items()}
    {'encoder/mlp': 2}
  """
  modules: dict[str, dict[str, np.ndarray]] = {}
  for path, common in counts.items():
    if common.any():
      modules.setdefault(silos.module_of(path), {})[path] = common
  return modules


def total_counts(
  counts: Mapping[str, Int64[np.ndarray, 'd d']],
) -> Int64[np.ndarray, 'd d']:
  """Returns how many positions every two deltas have in common in all.

  Args:
    counts: by path, as `overlap_counts` returns them.

  Returns:
    Their sum (count).

  Raises:
    DeltaError: if there are no parameters.

  Example:
    >>> total_counts({'a': np.int64([[1]]), 'b': np.int64([[2]])})
    array([[3]])
  """
  if not counts:
    raise DeltaError('there are no parameters to compare subsets in')
  return np.sum(list(counts.values()), axis=0)


def overlap_fractions(
  counts: Mapping[str, Int64[np.ndarray, 'd d']],
) -> Float64[np.ndarray, 'd d']:
  """Returns which fraction of every subset lies in every other.

    overlap[a, b] = |A ∩ B| / |A|

  Args:
    counts: common positions by path, as `overlap_counts` returns them, of all
      parameters or of some; they are added up first.

  Returns:
    The fractions, as `overlap` returns them.

  Raises:
    DeltaError: if there are no parameters.

  Example:
    >>> overlap_fractions({'scale': np.int64([[4, 1], [1, 2]])})
    array([[1.  , 0.25],
           [0.5 , 1.  ]])

  Source: DST, equation 9.
  """
  common = total_counts(counts)
  sizes = np.diagonal(common)[:, None]
  fractions = np.full(common.shape, np.nan)
  return np.divide(common, sizes, out=fractions, where=sizes > 0)


def _check_comparable(deltas: Sequence[SubsetDelta]) -> None:
  """Checks that deltas have one seed and agree in the shapes of parameters."""
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
          f'{quoting.quote(path)} has shape {quoting.quote(shapes[path])} in '
          f'one delta and {quoting.quote(entry.shape)} in another'
        )
