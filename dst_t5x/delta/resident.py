"""Deltas on parameters that stay where they are.

`delta.apply` makes new arrays; for a model that fills its devices there is no
room for those. Here the buffers are donated: every shard is changed on its own
device, nothing is gathered, and what comes out lies where it lay, at the same
addresses where the backend can do that. The price is that arrays from before a
change are deleted.

The seed's values at the positions of the delta are kept on the host, so taking
it back needs no seed.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from dst_t5x.arrays import fingerprints, flat_access, paths
from dst_t5x.delta import checks, outcomes
from dst_t5x.delta import writes as delta_writes
from dst_t5x.delta.types import (
  DeltaError,
  NotAppliedError,
  SubsetDelta,
  WrongSeedError,
)


class Resident:
  """A seed on its devices, with or without a delta in it.

  Everything is checked before the first write. If the outcome is not what the
  delta says all the same, it is taken back before the error is raised.

  Args:
    params: the seed, nested dict of JAX arrays, sharded or not. They belong to
      this object from now on: the first change deletes them.
    verify: False leaves out the checks of all parameters, which copy them to
      the host one at a time; whatever a delta touches is checked all the same.

  Raises:
    DeltaError: if a parameter is no JAX array.

  Example:
    >>> from dst_t5x import delta
    >>> seed = {'scale': np.float32([1.0, 2.0])}
    >>> found = delta.diff(seed, {'scale': np.float32([1.0, 2.5])})
    >>> model = Resident(jax.tree.map(jax.numpy.array, seed))
    >>> model.apply(found)
    >>> model.params['scale'].tolist()
    [1.0, 2.5]
    >>> model.revert()
    >>> model.params['scale'].tolist()
    [1.0, 2.0]
  """

  def __init__(self, params: Mapping[str, Any], *, verify: bool = True):
    self._flat = paths.flatten(params)
    for path, leaf in self._flat.items():
      if not isinstance(leaf, jax.Array):
        raise DeltaError(
          f'{path!r} is a {type(leaf).__name__}; only JAX arrays change '
          'in place: use delta.apply, or put it on a device'
        )
    self._verify = verify
    self._fingerprint: str | None = None
    self._delta: SubsetDelta | None = None
    self._seeds: dict[str, np.ndarray] = {}

  @property
  def params(self) -> dict[str, Any]:
    """The parameters, nested; the next change deletes what it touches."""
    return paths.unflatten(self._flat)

  @property
  def delta(self) -> SubsetDelta | None:
    """The delta that is applied."""
    return self._delta

  def apply(self, delta: SubsetDelta) -> None:
    """Puts a delta into the seed.

    Args:
      delta: made from this seed.

    Raises:
      DeltaError: if one is applied already, or of the kinds that `delta.apply`
        names; the parameters are as before.
    """
    if self._delta is not None:
      raise DeltaError(
        'a delta is applied already; swap it for this one, or revert it first'
      )
    self._change(delta)

  def revert(self) -> None:
    """Takes the delta out: the seed again, to the last bit.

    Raises:
      NotAppliedError: if there is none.
      ResultMismatchError: if the outcome is not the seed.
    """
    if self._delta is None:
      raise NotAppliedError('no delta is applied to these parameters')
    self._change(None)

  def swap(self, delta: SubsetDelta) -> None:
    """Puts a delta in place of the one that is applied: one write for both.

    Args:
      delta: made from the same seed.

    Raises:
      NotAppliedError: if there is none.
      DeltaError: of the kinds that `delta.apply` names; the parameters are as
        before.
    """
    if self._delta is None:
      raise NotAppliedError(
        'no delta is applied to these parameters; apply this one'
      )
    self._change(delta)

  def _change(self, new: SubsetDelta | None) -> None:
    old, old_seeds = self._delta, self._seeds
    seeds: dict[str, np.ndarray] = {}
    if new is not None:
      base = old.info.seed_fingerprint if old else self._fingerprint
      if base not in (None, new.info.seed_fingerprint):
        raise WrongSeedError(
          f'the seed of these parameters has the fingerprint {base}; the delta '
          f'was made from {new.info.seed_fingerprint}'
        )
      checks.check_fits(self._flat, new, 'the parameters')
      seeds = self._seed_values(new)
      checks.check_values(seeds, new)
      if self._verify and self._fingerprint is None:
        found = fingerprints.fingerprint(self.params)
        outcomes.check_seed(found, self._flat, new)
        self._fingerprint = found
    if old is not None:
      checks.check_applied(self._flat, old)
    writes = delta_writes.merged(old, old_seeds, new)
    undo = {
      path: (at, flat_access.gather(self._flat[path], at, path))
      for path, (at, _) in writes.items()
    }
    try:
      self._write(writes)
      self._check(new)
    except BaseException:
      self._write(undo)
      raise
    self._delta, self._seeds = new, seeds

  def _seed_values(self, new: SubsetDelta) -> dict[str, np.ndarray]:
    """Returns the seed's values at a delta's positions, whatever is applied."""
    values = checks.values_at(self._flat, new)
    for path, entry in self._delta.entries.items() if self._delta else ():
      if path in values and entry.size:
        _, mine, theirs = np.intersect1d(
          new.entries[path].positions,
          entry.positions,
          assume_unique=True,
          return_indices=True,
        )
        values[path][mine] = self._seeds[path][theirs]
    return values

  def _write(self, writes: delta_writes.Writes) -> None:
    for path, (positions, values) in writes.items():
      self._flat[path] = flat_access.scatter(
        self._flat[path], positions, values, path, donate=True
      )

  def _check(self, new: SubsetDelta | None) -> None:
    if new is not None:
      checks.check_applied(self._flat, new)
    needed = self._fingerprint if new is None else new.info.result_fingerprint
    if self._verify and needed is not None:
      outcomes.check_outcome(self.params, needed, 'the change in place')
