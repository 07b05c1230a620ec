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
from dst_t5x.delta import checks, verification
from dst_t5x.delta.types import SubsetDelta, WrongSeedError

# Flat positions and the values to put there, by path.
Writes = dict[str, tuple[np.ndarray, np.ndarray]]


def apply(
  params: Mapping[str, Any], delta: SubsetDelta, *, verify: bool = True
) -> dict[str, Any]:
  """Returns the seed with the delta's values in it.

  θ = the delta's value at its positions, θ⁰ everywhere else.

  Args:
    params: the seed θ⁰, nested dict of NumPy or JAX arrays.
    delta: the delta, made from this seed.
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
    NonFiniteValueError: if it holds a NaN or an infinity where the seed is
      finite.
    ResultMismatchError: if the outcome is not what the delta says.

  Example:
    >>> from dst_t5x.delta.difference import diff
    >>> seed = {'scale': np.float32([1.0, 2.0])}
    >>> tuned = {'scale': np.float32([1.0, 2.5])}
    >>> apply(seed, diff(seed, tuned))
    {'scale': array([1. , 2.5], dtype=float32)}

  Source: DST, equation 7, with the proposed values taken from the delta.
  """
  flat = paths.flatten(params)
  checks.check_fits(flat, delta, 'the parameters')
  verification.check_replaced(flat, delta)
  result = _write(flat, writes_for_change(None, {}, delta))
  if verify and fingerprints.fingerprint(result) != (
    delta.info.result_fingerprint
  ):
    verification.blame_seed_or_delta(
      fingerprints.fingerprint(params), flat, delta
    )
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
    delta: the delta that is applied.
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
    >>> from dst_t5x.delta.difference import diff
    >>> seed = {'scale': np.float32([1.0, 2.0])}
    >>> delta = diff(seed, {'scale': np.float32([1.0, 2.5])})
    >>> revert(apply(seed, delta), delta, seed)
    {'scale': array([1., 2.], dtype=float32)}
  """
  flat, seed = paths.flatten(params), paths.flatten(seed_params)
  checks.check_fits(flat, delta, 'the parameters')
  checks.check_fits(seed, delta, "the seed's parameters")
  verification.check_applied(flat, delta)
  replaced = verification.check_replaced(seed, delta)
  result = _write(flat, writes_for_change(delta, replaced, None))
  if verify:
    verification.check_outcome(
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
    >>> from dst_t5x.delta.difference import diff
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
  verification.check_applied(flat, old)
  replaced = verification.check_replaced(seed, old)
  verification.check_replaced(seed, new)
  result = _write(flat, writes_for_change(old, replaced, new))
  if verify:
    verification.check_outcome(result, new.info.result_fingerprint, 'the swap')
  return result


def writes_for_change(
  old: SubsetDelta | None,
  replaced: Mapping[str, np.ndarray],
  new: SubsetDelta | None,
) -> Writes:
  """Returns what must be written to put one delta in another's place.

  That is the seed's value wherever only the old delta has a position, and the
  new delta's value at its own positions.

  Args:
    old: the delta that is applied, if any.
    replaced: the seed's values at its positions, by path.
    new: the delta to apply, if any.

  Returns:
    Positions, each once but not sorted, and values; nothing for parameters in
    which neither delta has positions.

  Example:
    >>> from dst_t5x.delta.difference import diff
    >>> seed = {'a': np.float32([1.0, 2.0])}
    >>> old = diff(seed, {'a': np.float32([3.0, 4.0])})
    >>> new = diff(seed, {'a': np.float32([1.0, 5.0])})
    >>> writes_for_change(old, seed, new)
    {'a': (array([0, 1]), array([1., 5.], dtype=float32))}
  """
  writes: Writes = {}
  for path, entry in old.entries.items() if old else ():
    if entry.size:
      writes[path] = entry.positions, replaced[path]
  for path, entry in new.entries.items() if new else ():
    if not entry.size:
      continue
    positions, values = entry.positions, entry.values
    if path in writes:
      old_positions, seed_values = writes[path]
      only_old = ~np.isin(old_positions, positions, assume_unique=True)
      positions = np.concatenate([old_positions[only_old], positions])
      values = np.concatenate([seed_values[only_old], values])
    writes[path] = positions, values
  return writes


def _write(flat: Mapping[str, Any], writes: Writes) -> dict[str, Any]:
  """Returns a nested tree with the writes done; `flat` stays as it is."""
  result = dict(flat)
  for path, (positions, values) in writes.items():
    result[path] = flat_access.scatter(flat[path], positions, values, path)
  return paths.unflatten(result)
