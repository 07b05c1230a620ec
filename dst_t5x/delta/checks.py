"""What has to hold before a delta is used."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dst_t5x.arrays import fingerprints, flat_access, known_names
from dst_t5x.arrays.bit_types import bits
from dst_t5x.delta.types import (
  DeltaEntry,
  DtypeMismatchError,
  NonFiniteValueError,
  NotAppliedError,
  ShapeMismatchError,
  SubsetDelta,
  UnknownParameterError,
  WrongSeedError,
)


def replaced_hash(values: Mapping[str, np.ndarray]) -> str:
  """Returns the hash of the seed's values at a delta's positions.

  Args:
    values: by path, in the order of the positions.

  Returns:
    Their fingerprint, parameters without positions left out.

  Example:
    >>> replaced_hash({'a': np.ones(0)}) == replaced_hash({})
    True
  """
  return fingerprints.combine(
    {
      path: fingerprints.digest(array, path)
      for path, array in values.items()
      if array.size
    }
  )


def check_names(
  needed: Mapping[str, Any], there: Mapping[str, Any], where: str
) -> None:
  """Checks that every name is there.

  Args:
    needed: mapping with the names that must be there.
    there: mapping with the names that are.
    where: whose names those are, for the error.

  Raises:
    UnknownParameterError: naming one that is not and the nearest that is.
  """
  for path in needed:
    if path not in there:
      raise UnknownParameterError(
        f'no {path!r} among {where}{known_names.hint(path, there)}'
      )


def check_like(
  path: str, leaf: Any, shape: tuple[int, ...], dtype: np.dtype
) -> None:
  """Checks shape and dtype of one array.

  Args:
    path: its path, for the error.
    leaf: the array.
    shape: that it must have.
    dtype: that it must have, in whatever byte order.

  Raises:
    UnknownParameterError: if it is no array.
    ShapeMismatchError: if it has another shape.
    DtypeMismatchError: if it has another dtype.
  """
  found = getattr(leaf, 'shape', None), getattr(leaf, 'dtype', None)
  if found[0] is None or found[1] is None:
    raise UnknownParameterError(
      f'{path!r} is a {type(leaf).__name__}, not a NumPy or JAX array'
    )
  if tuple(found[0]) != shape:
    raise ShapeMismatchError(
      f'{path!r} has shape {tuple(found[0])}; {shape} is needed'
    )
  if np.dtype(found[1]).name != dtype.name:
    raise DtypeMismatchError(
      f'{path!r} is {np.dtype(found[1])}; {dtype} is needed, and a conversion '
      'would not be exact'
    )


def check_fits(flat: Mapping[str, Any], delta: SubsetDelta, where: str) -> None:
  """Checks that parameters have all that a delta has, in shape and dtype.

  Args:
    flat: parameters by path.
    delta: the delta.
    where: whose parameters those are, for the error.

  Raises:
    DeltaError: as `check_names` and `check_like`.
  """
  check_names(delta.entries, flat, where)
  for path, entry in delta.entries.items():
    check_like(path, flat[path], entry.shape, entry.dtype)


def values_at(
  flat: Mapping[str, Any], delta: SubsetDelta
) -> dict[str, np.ndarray]:
  """Returns what parameters hold at a delta's positions.

  Args:
    flat: parameters by path, which fit the delta.
    delta: the delta.

  Returns:
    The values of every entry, by path.
  """
  return {
    path: flat_access.gather(flat[path], entry.positions, path)
    if entry.size
    else np.empty(0, entry.dtype)
    for path, entry in delta.entries.items()
  }


def check_replaced(
  seed: Mapping[str, Any], delta: SubsetDelta
) -> dict[str, np.ndarray]:
  """Returns the seed's values at the positions if they are the right ones.

  Args:
    seed: parameters by path, which fit the delta.
    delta: the delta.

  Returns:
    The values, by path.

  Raises:
    WrongSeedError: if they are not those that the delta replaces.
    NonFiniteValueError: as `check_finite`.
  """
  values = values_at(seed, delta)
  check_values(values, delta)
  return values


def check_values(values: Mapping[str, np.ndarray], delta: SubsetDelta) -> None:
  """Checks values that were found at a delta's positions.

  Args:
    values: by path, of every entry.
    delta: the delta.

  Raises:
    WrongSeedError: if they are not those that the delta replaces.
    NonFiniteValueError: as `check_finite`.
  """
  found = replaced_hash(values)
  if found != delta.info.replaced_hash:
    if delta.size and all(
      np.array_equal(bits(values[path]), bits(entry.values))
      for path, entry in delta.entries.items()
    ):
      raise WrongSeedError('the delta is already applied to these parameters')
    raise WrongSeedError(
      'the delta was made from another seed: at its positions the values hash '
      f'to {found}, and {delta.info.replaced_hash} is needed; the seed it '
      f'belongs to has the fingerprint {delta.info.seed_fingerprint}'
    )
  for path, entry in delta.entries.items():
    check_finite(path, entry, values[path])


def check_finite(path: str, entry: DeltaEntry, seed: np.ndarray) -> None:
  """Checks that a delta brings no NaN or infinity where the seed has none.

  Args:
    path: of the parameter, for the error.
    entry: the delta's.
    seed: the seed's values at the entry's positions.

  Raises:
    NonFiniteValueError: if it does.
  """
  if entry.dtype.kind in 'biu' or not entry.size:
    return
  # isfinite complains of signalling NaNs in bfloat16.
  with np.errstate(invalid='ignore'):
    wrong = np.flatnonzero(~np.isfinite(entry.values) & np.isfinite(seed))
  if wrong.size:
    at = int(wrong[0])
    raise NonFiniteValueError(
      f'{path!r} has {wrong.size} values that are not finite where the seed '
      f'is; the first, {entry.values[at]}, at position {entry.positions[at]}'
    )


def check_applied(flat: Mapping[str, Any], delta: SubsetDelta) -> None:
  """Checks that parameters hold the values of a delta.

  Args:
    flat: parameters by path, which fit the delta.
    delta: the delta.

  Raises:
    NotAppliedError: if they do not.
  """
  values = values_at(flat, delta)
  for path, entry in delta.entries.items():
    wrong = int((bits(values[path]) != bits(entry.values)).sum())
    if wrong:
      raise NotAppliedError(
        f'{path!r} differs from the delta at {wrong} of its {entry.size} '
        'positions: this delta is not what is applied'
      )
