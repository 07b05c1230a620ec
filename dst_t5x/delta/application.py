"""Deltas: applying them to a seed, taking them back, swapping them.

Nothing here changes its arguments. An operation first checks everything that
can be wrong, then builds a new tree, then checks the outcome against the
fingerprint that the delta carries; a tree is returned only if all of that
passed. Values are moved, never computed with, so what comes back is the seed to
the last bit. Arrays of parameters without positions are shared between the old
tree and the new one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dst_t5x.arrays import fingerprints, flat_access, paths
from dst_t5x.delta import checks, outcomes
from dst_t5x.delta import writes as delta_writes
from dst_t5x.delta.difference import diff
from dst_t5x.delta.types import (
  DeltaEntry,
  DeltaError,
  DeltaFileError,
  DeltaInfo,
  DtypeMismatchError,
  InfoError,
  NonFiniteValueError,
  NotAppliedError,
  PositionError,
  ResultMismatchError,
  ShapeMismatchError,
  SubsetDelta,
  TooManyDifferencesError,
  UnknownParameterError,
  WrongSeedError,
)

__all__ = [
  'DeltaEntry',
  'DeltaError',
  'DeltaFileError',
  'DeltaInfo',
  'DtypeMismatchError',
  'InfoError',
  'NonFiniteValueError',
  'NotAppliedError',
  'PositionError',
  'ResultMismatchError',
  'ShapeMismatchError',
  'SubsetDelta',
  'TooManyDifferencesError',
  'UnknownParameterError',
  'WrongSeedError',
  'apply',
  'diff',
  'revert',
  'swap',
]


def apply(
  params: Mapping[str, Any], delta: SubsetDelta, *, verify: bool = True
) -> dict[str, Any]:
  """Returns the seed with the delta's values in it.

  Args:
    params: the seed, nested dict of NumPy or JAX arrays.
    delta: made from this seed.
    verify: False leaves out the check of the whole outcome, which reads every
      parameter; whatever the delta touches is checked all the same.

  Returns:
    A new tree of the same kinds of arrays.

  Raises:
    UnknownParameterError: if the seed lacks a parameter.
    ShapeMismatchError: if a shape differs.
    DtypeMismatchError: if a dtype differs.
    WrongSeedError: if the delta was made from another seed, or is applied
      already.
    NonFiniteValueError: if it holds a NaN or an infinity that is not the
      seed's.
    ResultMismatchError: if the outcome is not what the delta says.

  Example:
    >>> seed = {'scale': np.float32([1.0, 2.0])}
    >>> tuned = {'scale': np.float32([1.0, 2.5])}
    >>> apply(seed, diff(seed, tuned))
    {'scale': array([1. , 2.5], dtype=float32)}
  """
  flat = paths.flatten(params)
  checks.check_fits(flat, delta, 'the parameters')
  checks.check_replaced(flat, delta)
  new = {
    path: (entry.positions, entry.values)
    for path, entry in delta.entries.items()
  }
  result = _written(flat, new)
  if verify and fingerprints.fingerprint(result) != (
    delta.info.result_fingerprint
  ):
    found = fingerprints.fingerprint(params)
    outcomes.explain_result(found, flat, delta)
  return result


def revert(
  params: Mapping[str, Any],
  delta: SubsetDelta,
  seed_params: Mapping[str, Any],
  *,
  verify: bool = True,
) -> dict[str, Any]:
  """Returns the seed from parameters that hold the delta.

  Args:
    params: the seed with the delta applied, nested dict of arrays.
    delta: the one that is applied.
    seed_params: the seed, for the values at the delta's positions; NumPy or
      JAX, whatever `params` are.
    verify: False leaves out the check of the whole outcome.

  Returns:
    A new tree of the same kinds of arrays as `params`, equal to the seed to the
    last bit.

  Raises:
    NotAppliedError: if the parameters do not hold the delta's values.
    WrongSeedError: if the delta was made from another seed.
    DeltaError: of the kinds that `apply` names.

  Example:
    >>> seed = {'scale': np.float32([1.0, 2.0])}
    >>> delta = diff(seed, {'scale': np.float32([1.0, 2.5])})
    >>> revert(apply(seed, delta), delta, seed)
    {'scale': array([1., 2.], dtype=float32)}
  """
  flat, seed = paths.flatten(params), paths.flatten(seed_params)
  checks.check_fits(flat, delta, 'the parameters')
  checks.check_fits(seed, delta, "the seed's parameters")
  checks.check_applied(flat, delta)
  replaced = checks.check_replaced(seed, delta)
  new = {
    path: (entry.positions, replaced[path])
    for path, entry in delta.entries.items()
  }
  result = _written(flat, new)
  if verify:
    outcomes.check_outcome(
      result, delta.info.seed_fingerprint, 'taking the delta back'
    )
  return result


def swap(
  params: Mapping[str, Any],
  old: SubsetDelta,
  new: SubsetDelta,
  seed_params: Mapping[str, Any],
  *,
  verify: bool = True,
) -> dict[str, Any]:
  """Returns the seed with another delta in it: revert and apply in one.

  Args:
    params: the seed with `old` applied, nested dict of arrays.
    old: the delta that is applied.
    new: the delta to apply instead, made from the same seed.
    seed_params: the seed; see `revert`.
    verify: False leaves out the check of the whole outcome.

  Returns:
    A new tree, equal to `apply(revert(params, old, seed_params), new)` to the
    last bit.

  Raises:
    NotAppliedError: if the parameters do not hold the values of `old`.
    WrongSeedError: if a delta was made from another seed.
    DeltaError: of the kinds that `apply` names.

  Example:
    >>> seed = {'scale': np.float32([1.0, 2.0])}
    >>> a = diff(seed, {'scale': np.float32([1.0, 2.5])})
    >>> b = diff(seed, {'scale': np.float32([7.0, 2.0])})
    >>> swap(apply(seed, a), a, b, seed)
    {'scale': array([7., 2.], dtype=float32)}
  """
  if old.info.seed_fingerprint != new.info.seed_fingerprint:
    raise WrongSeedError(
      'the two deltas were made from different seeds: '
      f'{old.info.seed_fingerprint} and {new.info.seed_fingerprint}'
    )
  flat, seed = paths.flatten(params), paths.flatten(seed_params)
  for delta in (old, new):
    checks.check_fits(flat, delta, 'the parameters')
    checks.check_fits(seed, delta, "the seed's parameters")
  checks.check_applied(flat, old)
  replaced = checks.check_replaced(seed, old)
  checks.check_replaced(seed, new)
  writes = delta_writes.merged(old, replaced, new)
  result = _written(flat, writes)
  if verify:
    outcomes.check_outcome(result, new.info.result_fingerprint, 'the swap')
  return result


def _written(
  flat: Mapping[str, Any],
  writes: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> dict[str, Any]:
  result = dict(flat)
  for path, (positions, values) in writes.items():
    if positions.size:
      result[path] = flat_access.scatter(flat[path], positions, values, path)
  return paths.unflatten(result)
