"""The k-th largest score of every silo, three ways.

All three have one interface, `ThresholdFn`: given the scores, each silo's
budget k and what the last step left, they return for every silo a threshold
that at most k scores exceed. `exact` is the default: it finds, by counting
alone, a threshold that exactly the k largest exceed, or, where the k-th
largest ties with the next, that exactly those above the tie exceed.
`algorithm2` is the paper's approximation. `by_sorting` is the reference.

A silo with k = 0 gets the threshold +inf. No threshold is below 0, so a score
of 0 is never selected.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32

from dst_t5x.core import counting
from dst_t5x.core.counting import Partitioning, ScoreTable
from dst_t5x.core.silos import Silos

_FINITE = 0x7F7FFFFF  # bits of the largest finite float32
_INF = 0x7F800000  # bits of +inf


class SearchResult(NamedTuple):
  """What a search for thresholds returns.

  Attributes:
    threshold: float32[silos], to select the scores above it.
    selected: int32[silos], how many scores lie above it (count).
    carry: float32[silos], where the next search starts; 0 is a cold start.
    nonfinite: int32[entries], scores that are NaN or infinite (count), one
      number for every name in `counting.entries`.
    passes: int32[], how often the scores were read.
  """

  threshold: Float32[Array, ' silos']
  selected: Int32[Array, ' silos']
  carry: Float32[Array, ' silos']
  nonfinite: Int32[Array, ' entries']
  passes: Int32[Array, '']


ThresholdFn = Callable[
  [ScoreTable, Silos, jax.Array, jax.Array, Partitioning | None], SearchResult
]


class _Bracket(NamedTuple):
  """low: largest bits known to have > k above; high: smallest with <= k."""

  passes: Int32[Array, '']
  low: Int32[Array, ' silos']
  high: Int32[Array, ' silos']
  above: Int32[Array, ' silos']  # scores above `high`
  done: Bool[Array, ' silos']
  nonfinite: Int32[Array, ' entries']


def exact(
  table: ScoreTable,
  silos: Silos,
  budgets: Int32[Array, ' silos'],
  carry: Float32[Array, ' silos'],
  partitioning: Partitioning | None = None,
) -> SearchResult:
  """Returns thresholds that exactly k scores of each silo exceed.

  The bit patterns of non-negative floats are ordered like the floats, so the
  search runs over whole numbers: each pass counts the scores above up to 15
  patterns and keeps the gap in which the count falls to k or below. The first
  pass looks around the last step's threshold; later ones divide the gap by 16
  and skip the silos that are done. A gap of 2³¹ closes in 8 passes.

  Args:
    table: the scores.
    silos: the partition.
    budgets: k of every silo (count).
    carry: last threshold of every silo, 0 if there is none.
    partitioning: placement on a mesh.

  Returns:
    Thresholds with the largest number of scores above them that is at most k.

  Source: DST, line 5 of algorithm 1, without its approximation.
  """
  start = _Bracket(
    passes=jnp.int32(0),
    low=jnp.full_like(budgets, -1),
    high=jnp.full_like(budgets, _INF),
    above=jnp.zeros_like(budgets),
    done=budgets <= 0,
    nonfinite=jnp.zeros(len(counting.entries(silos)), jnp.int32),
  )

  # One body for all passes: the tensors' counts are most of the program, and
  # a pass outside the loop would compile them twice.
  def search(bracket: _Bracket) -> _Bracket:
    first = bracket.passes == 0
    grid = jnp.where(
      first, _first_grid(carry), _uniform_grid(bracket.low, bracket.high)
    )
    counts = counting.count(
      table,
      silos,
      _floats(grid),
      skip=bracket.done & ~first,
      partitioning=partitioning,
    )
    return _narrow(
      bracket._replace(
        nonfinite=jnp.where(first, counts[:, -1], bracket.nonfinite)
      ),
      grid,
      counting.per_silo(silos, counts),
      budgets,
    )

  end = jax.lax.while_loop(
    lambda b: (b.passes == 0) | ~jnp.all(b.done), search, start
  )
  threshold = _floats(end.high)
  usable = (end.high > 0) & (end.high < _INF)
  return SearchResult(
    threshold=threshold,
    selected=end.above,
    carry=jnp.where(usable, threshold, carry),
    nonfinite=end.nonfinite,
    passes=end.passes,
  )


def algorithm2(
  table: ScoreTable,
  silos: Silos,
  budgets: Int32[Array, ' silos'],
  carry: Float32[Array, ' silos'],
  partitioning: Partitioning | None = None,
  *,
  iterations: int = 3,
  fluctuation: float = 2.0,
  literal: bool = False,
) -> SearchResult:
  """Returns the paper's approximate thresholds.

  Bisects [q'/r, r q'] m times and takes the end whose count is nearer to k.
  The paper's midpoint (q_hi − q_lo)/2 is read as the mean (q_hi + q_lo)/2.
  The lower end, which more than k scores exceed, is what the next step starts
  from where the paper says so, but is never selected with: this step then uses
  the upper end, and selects nothing while even r q' is too low.

  Three halvings resolve a threshold to an eighth. That keeps the count within
  1 % of k, as the paper reports, where what is in the subset stands apart from
  the rest; among evenly spread scores much of the budget may stay unused.

  Args:
    table: the scores.
    silos: the partition.
    budgets: k of every silo (count).
    carry: q', 0 if there is none; the search then starts at 1.
    partitioning: placement on a mesh.
    iterations: m (count).
    fluctuation: r, the largest factor between two steps' thresholds.
    literal: select with the nearer end even if that exceeds the budget.

  Returns:
    Thresholds. Without `literal`, at most k scores exceed each.

  Raises:
    ValueError: if m < 1 or r <= 1.

  Source: DST, algorithm 2.
  """
  if iterations < 1 or not 1.0 < fluctuation < float('inf'):
    raise ValueError(
      f'algorithm 2 needs m >= 1 and r > 1, not m={iterations}, r={fluctuation}'
    )

  def above(*columns: Array) -> tuple[Array, Array]:
    counts = counting.count(
      table, silos, jnp.stack(columns, axis=1), partitioning=partitioning
    )
    return counting.per_silo(silos, counts), counts

  ratio = jnp.float32(fluctuation)
  middle = jnp.where(carry > 0, carry, jnp.float32(1))
  low, high = middle / ratio, middle * ratio
  finite = _floats(jnp.full_like(budgets, _FINITE))
  nonfinite = jnp.zeros(len(counting.entries(silos)), jnp.int32)
  for i in range(iterations):
    counts, rows = above(middle, finite)
    if i == 0:
      nonfinite = rows[:, 1]
    too_many = counts[:, 0] > budgets
    low = jnp.where(too_many, middle, low)
    high = jnp.where(too_many, high, middle)
    middle = (low + high) / 2
  ends, _ = above(low, high)
  over, under = ends[:, 0], ends[:, 1]
  nearer = jnp.abs(over - budgets) < jnp.abs(under - budgets)
  tracked = jnp.where(nearer, low, high)
  if literal:
    threshold = tracked
    selected = jnp.where(nearer, over, under)
  else:
    # The lower end may exceed k by less than the upper falls short of it.
    take_low = nearer & (over <= budgets)
    fits = under <= budgets
    threshold = jnp.where(fits, high, jnp.float32(jnp.inf))
    threshold = jnp.where(take_low, low, threshold)
    selected = jnp.where(fits, under, 0)
    selected = jnp.where(take_low, over, selected)
  threshold = jnp.where(budgets > 0, threshold, jnp.float32(jnp.inf))
  # A q' of 0 could never grow again.
  tracked = jnp.maximum(tracked, jnp.finfo(jnp.float32).tiny)
  tracked = jnp.minimum(tracked, finite / ratio)
  return SearchResult(
    threshold=threshold,
    selected=jnp.where(budgets > 0, selected, 0),
    carry=tracked,
    nonfinite=nonfinite,
    passes=jnp.int32(iterations + 1),
  )


def algorithm2_with(
  *, iterations: int = 3, fluctuation: float = 2.0, literal: bool = False
) -> ThresholdFn:
  """Returns `algorithm2` with other settings than the paper's m = 3, r = 2.

  Args:
    iterations: m (count).
    fluctuation: r.
    literal: may exceed the budget, as the printed algorithm does.

  Returns:
    A threshold function.

  Example:
    >>> search = algorithm2_with(iterations=5)
  """
  return functools.partial(
    algorithm2,
    iterations=iterations,
    fluctuation=fluctuation,
    literal=literal,
  )


def by_sorting(
  table: ScoreTable,
  silos: Silos,
  budgets: Int32[Array, ' silos'],
  carry: Float32[Array, ' silos'],
  partitioning: Partitioning | None = None,
) -> SearchResult:
  """Returns the (k + 1)-th largest score of every silo, by sorting it whole.

  Slow, and short enough to be seen right: the reference for the others.

  Args:
    table: the scores.
    silos: the partition.
    budgets: k of every silo (count).
    carry: returned as it is; sorting needs no start.
    partitioning: not needed; the compiler gathers what it sorts.

  Returns:
    Thresholds that exactly k scores exceed unless ties forbid it.

  Source: DST, line 5 of algorithm 1.
  """
  del partitioning
  parts: list[list[Array]] = [[] for _ in silos.names]
  nonfinite = []
  for path, placement in silos.placements.items():
    scores = table.scores(path)
    if placement.axis is None:
      rows = scores.reshape(1, -1)
    else:
      rows = jnp.moveaxis(scores, placement.axis, 0)
      rows = rows.reshape(len(placement.silos), -1)
    nonfinite.append(jnp.sum(~jnp.isfinite(rows), axis=1, dtype=jnp.int32))
    for i, silo in enumerate(placement.silos):
      parts[silo].append(rows[i])
  thresholds, selected = [], []
  for i, pieces in enumerate(parts):
    scores = jnp.sort(jnp.concatenate(pieces), descending=True)
    k = budgets[i]
    # Beyond the last score lies 0: everything positive may be selected.
    padded = jnp.concatenate([scores, jnp.zeros(1, jnp.float32)])
    threshold = padded[jnp.minimum(k, scores.size)]
    threshold = jnp.where(k > 0, threshold, jnp.float32(jnp.inf))
    thresholds.append(threshold)
    selected.append(jnp.sum(scores > threshold, dtype=jnp.int32))
  return SearchResult(
    threshold=jnp.stack(thresholds),
    selected=jnp.stack(selected),
    carry=carry,
    nonfinite=jnp.concatenate(nonfinite),
    passes=jnp.int32(1),
  )


def _floats(bits: Int32[Array, '*s']) -> Float32[Array, '*s']:
  return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _first_grid(carry: Float32[Array, ' silos']) -> Int32[Array, 'silos 15']:
  """Returns 0, 13 patterns around the carry, and the largest finite one.

  0 settles at once the silos with fewer than k positive scores; the largest
  finite pattern counts the scores that are not finite.
  """
  steps = np.round(2.0 ** np.linspace(12.0, 24.5, 6)).astype(np.int64)
  around = np.concatenate([-steps[::-1], [0], steps])
  # A cold start spreads them over 2⁻⁶⁰ to 2⁰ instead.
  cold = (np.linspace(-60, 0, 13).round().astype(np.int64) + 127) << 23
  bits = jax.lax.bitcast_convert_type(carry, jnp.int32)[:, None]
  # |around| < 2²⁵, so adding after limiting cannot overflow int32.
  near = jnp.minimum(bits, _FINITE - int(steps[-1])) + jnp.asarray(
    around, jnp.int32
  )
  middle = jnp.where(bits > 0, near, jnp.asarray(cold, jnp.int32))
  middle = jnp.clip(middle, 0, _FINITE)
  return jnp.concatenate(
    [jnp.zeros_like(bits), middle, jnp.full_like(bits, _FINITE)], axis=1
  )


def _uniform_grid(
  low: Int32[Array, ' silos'], high: Int32[Array, ' silos']
) -> Int32[Array, 'silos 15']:
  """Returns 15 patterns that divide (low, high) into 16 nearly equal parts."""
  parts = counting.WIDTH + 1
  width = (high - low)[:, None]
  j = jnp.arange(1, parts, dtype=jnp.int32)
  grid = low[:, None] + width // parts * j + width % parts * j // parts
  return jnp.clip(
    grid, low[:, None] + 1, jnp.maximum(high - 1, low + 1)[:, None]
  )


def _narrow(
  bracket: _Bracket,
  grid: Int32[Array, 'silos width'],
  counts: Int32[Array, 'silos width'],
  budgets: Int32[Array, ' silos'],
) -> _Bracket:
  passes, low, high, above, done, nonfinite = bracket
  over = counts > budgets[:, None]
  new_low = jnp.max(jnp.where(over, grid, low[:, None]), axis=1)
  new_high = jnp.min(jnp.where(over, high[:, None], grid), axis=1)
  new_above = jnp.max(jnp.where(over, above[:, None], counts), axis=1)
  low = jnp.where(done, low, new_low)
  high = jnp.where(done, high, new_high)
  above = jnp.where(done, above, new_above)
  done |= (above == budgets) | (high - low <= 1)
  return _Bracket(passes + 1, low, high, above, done, nonfinite)
