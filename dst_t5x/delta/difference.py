"""Taking a delta: what turned a seed into other parameters."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dst_t5x.arrays import dtypes, fingerprints, flat_access, paths
from dst_t5x.arrays.bit_types import bits
from dst_t5x.delta import checks, verification
from dst_t5x.delta.types import (
  DeltaEntry,
  DeltaInfo,
  SubsetDelta,
  TooManyDifferencesError,
)

_CHUNK = 1 << 20  # numbers compared at a time


def diff(
  seed_params: Mapping[str, Any],
  tuned_params: Mapping[str, Any],
  *,
  method: str = 'unknown',
  epsilon: float | None = None,
  budget: int | None = None,
  silo_rule: str = 'unknown',
  step: int = 0,
  max_fraction: float = 1.0,
) -> SubsetDelta:
  """Returns what turns the seed into the tuned parameters.

  Values differ if their bits do: −0.0 is not 0.0, and a NaN equals itself.

  Args:
    seed_params: the seed θ⁰, nested dict of NumPy or JAX arrays.
    tuned_params: θ, with the same names, shapes and dtypes.
    method: name to record in the delta's info; see `DeltaInfo`.
    epsilon: fraction to record, or None.
    budget: count to record, or None.
    silo_rule: name of the silo scheme to record.
    step: training steps to record (count).
    max_fraction: largest part of all parameters that may differ (fraction).

  Returns:
    The delta, with an entry for every parameter, changed or not.

  Raises:
    UnknownParameterError: if a name is on one side only.
    ShapeMismatchError: if a shape differs.
    DtypeMismatchError: if a dtype differs.
    NonFiniteValueError: if a value is NaN or infinite where the seed is finite.
    TooManyDifferencesError: if more than `max_fraction` differs.
    InfoError: if the info makes no sense.

  Example:
    >>> seed = {'scale': np.float32([1.0, 2.0, 3.0])}
    >>> delta = diff(seed, {'scale': np.float32([1.0, 2.5, 3.0])})
    >>> delta.entries['scale'].positions, delta.entries['scale'].values
    (array([1]), array([2.5], dtype=float32))
  """
  seed, tuned = paths.flatten(seed_params), paths.flatten(tuned_params)
  checks.check_names(seed, tuned, 'the tuned parameters')
  checks.check_names(tuned, seed, "the seed's parameters")
  entries, replaced = {}, {}
  seed_digests, tuned_digests = {}, {}
  for path, leaf in seed.items():
    old = fingerprints.to_host(leaf, path)
    new = fingerprints.to_host(tuned[path], path)
    checks.check_array(path, new, old.shape, old.dtype)
    positions = _differing(old, new)
    entries[path] = DeltaEntry(
      old.shape, old.dtype, positions, flat_access.gather(new, positions, path)
    )
    replaced[path] = flat_access.gather(old, positions, path)
    verification.check_finite(path, entries[path], replaced[path])
    seed_digests[path] = fingerprints.digest(old, path)
    tuned_digests[path] = (
      fingerprints.digest(new, path) if positions.size else seed_digests[path]
    )
  info = DeltaInfo(
    method=method,
    epsilon=epsilon,
    budget=budget,
    silo_rule=silo_rule,
    step=step,
    seed_fingerprint=fingerprints.combine(seed_digests),
    replaced_hash=verification.replaced_hash(replaced),
    result_fingerprint=fingerprints.combine(tuned_digests),
  )
  delta = SubsetDelta(entries, info)
  total = sum(math.prod(entry.shape) for entry in entries.values())
  if delta.size > max_fraction * total:
    raise TooManyDifferencesError(
      f'{delta.size} of {total} parameters differ ({delta.size / total:.3g}); '
      f'at most {max_fraction:.3g} may'
    )
  return delta


def _differing(old: np.ndarray, new: np.ndarray) -> np.ndarray:
  """Returns the flat positions at which the bits differ."""
  a, b = bits(_native(old)).reshape(-1), bits(_native(new)).reshape(-1)
  pieces = [
    np.flatnonzero(a[start : start + _CHUNK] != b[start : start + _CHUNK])
    + start
    for start in range(0, a.size, _CHUNK)
  ]
  return np.concatenate([np.empty(0, np.int64), *pieces])


def _native(array: np.ndarray) -> np.ndarray:
  """Returns the array in this machine's byte order."""
  return array.astype(dtypes.DTYPES[array.dtype.name], copy=False)
