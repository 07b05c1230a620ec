"""Several deltas of one seed as one: a task and a language, say.

A position that several deltas hold is *shared*; it is a *conflict* if they hold
different bits there. Everywhere else there is nothing to decide.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dst_t5x.arrays import fingerprints, flat_access, paths
from dst_t5x.arrays.bit_types import bits
from dst_t5x.delta import checks
from dst_t5x.delta.types import (
  DeltaEntry,
  DeltaError,
  DeltaInfo,
  DtypeMismatchError,
  NonFiniteValueError,
  SubsetDelta,
  WrongSeedError,
)

POLICIES = ('error', 'last', 'sum')


class ConflictError(DeltaError):
  """Deltas hold different values at the same positions."""


class Composition(NamedTuple):
  """What became of several deltas.

  Attributes:
    delta: all of them in one.
    shared: positions that more than one of them holds, by path (count);
      parameters without any are left out.
    conflicts: those of them with different values, likewise.
  """

  delta: SubsetDelta
  shared: dict[str, int]
  conflicts: dict[str, int]


def compose(
  seed_params: Mapping[str, Any],
  deltas: Sequence[SubsetDelta],
  *,
  on_conflict: str = 'error',
) -> Composition:
  """Returns one delta that does what several do.

  With 'sum', a position that several deltas hold gets the sum of their
  differences, θ = θ⁰ + Σ (θᵈ − θ⁰), also where they agree; it is computed in
  float64, in the order of the deltas, and rounded once.

  Args:
    seed_params: the seed of all of them, nested dict of NumPy or JAX arrays.
    deltas: two or more.
    on_conflict: 'error' refuses conflicts; 'last' takes the value of the last
      delta that holds the position; 'sum' adds differences up.

  Returns:
    The delta, and what was shared. Positions at which the outcome is the seed's
    value are left out.

  Raises:
    ConflictError: if there are conflicts and none are allowed.
    WrongSeedError: if the deltas are not all made from this seed.
    DtypeMismatchError: if differences are to be summed of other than floats.
    NonFiniteValueError: if a sum is not finite.
    DeltaError: if there are fewer than two, the policy is unknown, or one does
      not fit the seed.

  Example:
    >>> from dst_t5x import delta
    >>> seed = {'scale': np.float32([1.0, 2.0])}
    >>> task = delta.diff(seed, {'scale': np.float32([1.5, 2.0])})
    >>> language = delta.diff(seed, {'scale': np.float32([1.25, 3.0])})
    >>> both = compose(seed, [task, language], on_conflict='sum')
    >>> both.delta.entries['scale'].values, both.conflicts
    (array([1.75, 3.  ], dtype=float32), {'scale': 1})

  Source: Ansell et al., Composable Sparse Fine-Tuning for Cross-Lingual
  Transfer (2022), which adds a task's and a language's differences up.
  """
  if on_conflict not in POLICIES:
    raise DeltaError(
      f'on_conflict={on_conflict!r} is unknown; there are {", ".join(POLICIES)}'
    )
  if len(deltas) < 2:
    raise DeltaError(f'{len(deltas)} deltas are too few to compose; give two')
  flat = paths.flatten(seed_params)
  _check(flat, deltas)
  merged, shared, conflicts = {}, {}, {}
  for path in flat:
    parts = [delta.entries[path] for delta in deltas if path in delta.entries]
    if not any(part.size for part in parts):
      continue
    positions, several, differing = _meet(parts)
    _put(shared, path, several.size)
    _put(conflicts, path, differing)
    merged[path] = parts, positions, several
  if conflicts and on_conflict == 'error':
    raise ConflictError(
      f'{sum(conflicts.values())} positions have different values in the '
      f'deltas: {_listed(conflicts)}; let the last delta win, or sum the '
      'differences'
    )
  entries, replaced = {}, {}
  for path, (parts, positions, several) in merged.items():
    leaf = flat[path]
    seeds = flat_access.gather(leaf, positions, path)
    values = _last(parts, positions)
    if on_conflict == 'sum' and several.size:
      held = np.isin(positions, several, assume_unique=True)
      values[held] = _sum(path, parts, several, seeds[held])
    changed = bits(values) != bits(seeds)
    entry = DeltaEntry(
      parts[0].shape, parts[0].dtype, positions[changed], values[changed]
    )
    if entry.size:
      entries[path], replaced[path] = entry, seeds[changed]
  delta = SubsetDelta(entries, _info(flat, entries, replaced, deltas))
  return Composition(delta, shared, conflicts)


def _check(flat: Mapping[str, Any], deltas: Sequence[SubsetDelta]) -> None:
  """Checks that all deltas were made from these parameters."""
  seeds = sorted({delta.info.seed_fingerprint for delta in deltas})
  if len(seeds) > 1:
    raise WrongSeedError(
      f'the deltas were made from different seeds: {" and ".join(seeds)}'
    )
  for delta in deltas:
    checks.check_fits(flat, delta, "the seed's parameters")
    checks.check_replaced(flat, delta)


def _info(
  flat: Mapping[str, Any],
  entries: Mapping[str, DeltaEntry],
  replaced: Mapping[str, np.ndarray],
  deltas: Sequence[SubsetDelta],
) -> DeltaInfo:
  """Returns where the composition came from; one tensor is copied at a time."""
  before, after = {}, {}
  for path, leaf in flat.items():
    before[path] = after[path] = fingerprints.digest(leaf, path)
    if path in entries:
      entry = entries[path]
      new = flat_access.scatter(leaf, entry.positions, entry.values, path)
      after[path] = fingerprints.digest(new, path)
  found = fingerprints.combine(before)
  told = deltas[0].info.seed_fingerprint
  if found != told:
    raise WrongSeedError(
      f'the parameters have the fingerprint {found}; the deltas were made from '
      f'{told}, which has the same values at their positions but differs '
      'elsewhere'
    )
  rules = {delta.info.silo_rule for delta in deltas}
  return DeltaInfo(
    method=f'compose({", ".join(delta.info.method for delta in deltas)})',
    epsilon=None,
    budget=None,
    silo_rule=rules.pop() if len(rules) == 1 else 'mixed',
    step=sum(delta.info.step for delta in deltas),
    seed_fingerprint=found,
    replaced_hash=checks.replaced_hash(replaced),
    result_fingerprint=fingerprints.combine(after),
  )


def _put(counts: dict[str, int], path: str, count: int) -> None:
  if count:
    counts[path] = count


def _listed(counts: Mapping[str, int]) -> str:
  rows = [f'{count} in {path!r}' for path, count in counts.items()]
  more = [f'and {len(rows) - 8} more parameters'] if len(rows) > 8 else []
  return ', '.join(rows[:8] + more)


def _meet(
  parts: Sequence[DeltaEntry],
) -> tuple[np.ndarray, np.ndarray, int]:
  """Returns all positions, those held by several, and how many conflict."""
  together = np.concatenate([part.positions for part in parts])
  values = np.concatenate([bits(part.values) for part in parts])
  order = np.argsort(together, kind='stable')
  together, values = together[order], values[order]
  again = together[1:] == together[:-1]
  positions = together[np.append(True, ~again)] if together.size else together
  several = np.unique(together[1:][again])
  other = again & (values[1:] != values[:-1])
  return positions, several, np.unique(together[1:][other]).size


def _last(parts: Sequence[DeltaEntry], positions: np.ndarray) -> np.ndarray:
  values = np.empty(positions.size, parts[0].dtype)
  for part in parts:
    values[np.searchsorted(positions, part.positions)] = part.values
  return values


def _sum(
  path: str,
  parts: Sequence[DeltaEntry],
  positions: np.ndarray,
  seeds: np.ndarray,
) -> np.ndarray:
  dtype = parts[0].dtype
  if dtype.kind in 'biu':
    raise DtypeMismatchError(
      f'{path!r} is {dtype}: differences of floats alone are summed; let the '
      'last delta win'
    )
  total = np.zeros(positions.size)
  base = seeds.astype(np.float64)
  # What overflows or begins at a NaN is refused below.
  with np.errstate(invalid='ignore', over='ignore'):
    for part in parts:
      held = np.isin(positions, part.positions, assume_unique=True)
      own = np.isin(part.positions, positions, assume_unique=True)
      total[held] += part.values[own].astype(np.float64) - base[held]
    values = (base + total).astype(dtype)
    wrong = np.flatnonzero(~np.isfinite(values))
  if wrong.size:
    raise NonFiniteValueError(
      f'{path!r}: {wrong.size} sums of differences are not finite; the first '
      f'at position {positions[wrong[0]]}, where the seed is {seeds[wrong[0]]}'
    )
  return values
