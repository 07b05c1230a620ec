"""The k-th largest score of every silo, three ways.

All three have one interface, `ThresholdFn`: given the scores, each silo's
budget k and what the last step left, they return for every silo a threshold
that at most k scores exceed. `exact` is the default: it finds, by counting
alone, a threshold that exactly the k largest exceed, or, where the k-th
largest ties with the next, which of those that tie belong to the k.
`algorithm2` is the paper's approximation. `by_sorting` is the reference.

Ties go to the smaller index: to the tensor that comes first in the silo, then
to the smaller row-major index in it, or in the slice of a stack. So `exact` and
`by_sorting` select exactly k whenever k scores are positive, and the same ones
on every mesh, and with scanned layers as without where each layer has silos of
its own. `algorithm2` selects nothing that ties with its threshold.

To settle ties takes no time where there are none, but its program takes the
compiler about as long as the rest of the search. A subset that is chosen once
must not stay short for ever, so that those methods pay for it; one that is
chosen anew at every step drops what ties (`dropping_ties`).

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

from dst_t5x.core import counting, score_stacks, silo_rows
from dst_t5x.core.score_stacks import Partitioning, ScoreTable
from dst_t5x.core.silos import Silos

_FINITE = 0x7F7FFFFF  # bits of the largest finite float32
_INF = 0x7F800000  # bits of +inf


class SearchResult(NamedTuple):
  """What a search for thresholds returns.

  Attributes:
    threshold: float32[silos], to select the scores above it.
    cutoff: int32[rows], to select of the scores that equal it, too, those whose
      row-major index is smaller; one number for every name in
      `counting.row_names`. None selects none of them.
    selected: int32[silos], how many scores both select (count).
    carry: float32[silos], where the next search starts; 0 is a cold start.
    nonfinite: int32[rows], scores that are NaN or infinite (count), one
      number for every name in `counting.row_names`.
    passes: int32[], how often the scores were read.
  """

  threshold: Float32[Array, ' silos']
  cutoff: Int32[Array, ' rows'] | None
  selected: Int32[Array, ' silos']
  carry: Float32[Array, ' silos']
  nonfinite: Int32[Array, ' rows']
  passes: Int32[Array, '']


ThresholdFn = Callable[
  [ScoreTable, Silos, jax.Array, jax.Array, Partitioning | None], SearchResult
]


class _Bracket(NamedTuple):
  """low: largest bits known to have > k above; high: smallest with <= k."""

  low: Int32[Array, ' silos']
  high: Int32[Array, ' silos']
  above: Int32[Array, ' silos']  # scores above `high`
  done: Bool[Array, ' silos']


class _Ties(NamedTuple):
  """low: largest cutoff known to take <= `wanted`; high: smallest with more."""

  low: Int32[Array, ' rows']
  high: Int32[Array, ' rows']
  wanted: Int32[Array, ' rows']  # ties that are to be selected; −1: unknown
  done: Bool[Array, ' rows']


class _Search(NamedTuple):
  """Where a search stands."""

  passes: Int32[Array, '']
  nonfinite: Int32[Array, ' rows']
  bracket: _Bracket
  ties: _Ties


def exact(
  table: ScoreTable,
  silos: Silos,
  budgets: Int32[Array, ' silos'],
  carry: Float32[Array, ' silos'],
  partitioning: Partitioning | None = None,
  *,
  break_ties: bool = True,
) -> SearchResult:
  """Returns thresholds that select exactly k scores of each silo.

  The bit patterns of non-negative floats are ordered like the floats, so the
  search runs over whole numbers: each pass counts the scores above up to 15
  patterns and keeps the gap in which the count falls to k or below. The first
  pass looks around the last step's threshold; later ones divide the gap by 16
  and skip the silos that are done. A gap of 2³¹ closes in 8 passes.

  Where fewer than k scores lie above the gap's end, those that equal it tie for
  the rest of the budget. Then more passes count the ties before some positions
  of each tensor and narrow the gap in which the last one lies that still fits.
  Without ties there are no such passes.

  Args:
    table: the scores.
    silos: the partition.
    budgets: k of every silo (count).
    carry: last threshold of every silo, 0 if there is none.
    partitioning: placement on a mesh.
    break_ties: False selects none of the scores that tie for the last places.

  Returns:
    Thresholds and cutoffs that select k scores, or all that are positive where
    there are fewer.

  Source: DST, line 5 of algorithm 1, without its approximation.
  """
  ids = silo_rows.row_silos(silos)
  scores = score_stacks.stack(table, silos, partitioning)
  rows = jnp.zeros(len(ids), jnp.int32)
  start = _Search(
    passes=jnp.int32(0),
    nonfinite=rows,
    bracket=_Bracket(
      low=jnp.full_like(budgets, -1),
      high=jnp.full_like(budgets, _INF),
      above=jnp.zeros_like(budgets),
      done=budgets <= 0,
    ),
    ties=_Ties(
      low=rows,
      high=jnp.asarray(score_stacks.row_sizes(scores)),
      wanted=jnp.full_like(rows, -1),
      done=jnp.zeros(len(ids), jnp.bool_),
    ),
  )

  def short(bracket: _Bracket) -> Bool[Array, ' silos']:
    # Below `high` more than k scores lie above, so some equal it.
    tied = bracket.done & (bracket.above < budgets)
    return tied & (bracket.high > 0) & (bracket.high < _INF)

  def open_rows(search: _Search) -> Bool[Array, ' rows']:
    if not break_ties:
      return jnp.zeros(len(ids), jnp.bool_)
    return short(search.bracket)[ids] & ~search.ties.done

  # One body for all passes: the tensors' counts are most of the program, and
  # a pass outside the loop would compile them twice.
  def advance(search: _Search) -> _Search:
    passes, nonfinite, bracket, ties = search
    first = passes == 0
    grid = jnp.where(
      first, _first_grid(carry), _uniform_grid(bracket.low, bracket.high)
    )
    skip = bracket.done[ids] & ~first
    question = None
    if break_ties:
      asked = jnp.all(bracket.done) & ~first
      cutoffs = _cutoff_grid(ties.low, ties.high)
      question = counting.Ties(asked, _floats(bracket.high)[ids], cutoffs)
      skip = jnp.where(asked, ~open_rows(search), skip)
    counts = counting.count_by_row(
      scores, _floats(grid)[ids], ties=question, skip=skip
    )
    if question is not None:
      narrowed = _narrow_ties(
        ties,
        question.cutoffs,
        counts[:, : counting.TIE_WIDTH],
        silos,
        budgets - bracket.above,
      )
      moves = question.asked & open_rows(search)
      ties = _Ties(
        *(jnp.where(moves, n, t) for n, t in zip(narrowed, ties, strict=True))
      )
    return _Search(
      passes=passes + 1,
      nonfinite=jnp.where(first, counts[:, -1], nonfinite),
      bracket=_narrow(
        bracket, grid, silo_rows.per_silo(silos, counts), budgets
      ),
      ties=ties,
    )

  def unfinished(search: _Search) -> Bool[Array, '']:
    first = search.passes == 0
    open_silos = ~jnp.all(search.bracket.done)
    return first | open_silos | jnp.any(open_rows(search))

  end = jax.lax.while_loop(unfinished, advance, start)
  bracket = end.bracket
  threshold = _floats(bracket.high)
  usable = (bracket.high > 0) & (bracket.high < _INF)
  cutoff, selected = None, bracket.above
  if break_ties:
    cutoff = jnp.where(short(bracket)[ids], end.ties.low, 0)
    selected = jnp.where(short(bracket), budgets, selected)
  return SearchResult(
    threshold=threshold,
    cutoff=cutoff,
    selected=selected,
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

  ids = silo_rows.row_silos(silos)
  scores = score_stacks.stack(table, silos, partitioning)

  def above(*columns: Array) -> tuple[Array, Array]:
    counts = counting.count_by_row(scores, jnp.stack(columns, axis=1)[ids])
    return silo_rows.per_silo(silos, counts), counts

  ratio = jnp.float32(fluctuation)
  middle = jnp.where(carry > 0, carry, jnp.float32(1))
  low, high = middle / ratio, middle * ratio
  finite = _floats(jnp.full_like(budgets, _FINITE))
  nonfinite = jnp.zeros(len(counting.row_names(silos)), jnp.int32)
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
    cutoff=None,
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
  *,
  break_ties: bool = True,
) -> SearchResult:
  """Returns the (k + 1)-th largest score of every silo, by sorting it whole.

  Slow, and short enough to be seen right: the reference for the others.

  Args:
    table: the scores.
    silos: the partition.
    budgets: k of every silo (count).
    carry: returned as it is; sorting needs no start.
    partitioning: not needed; the compiler gathers what it sorts.
    break_ties: as in `exact`.

  Returns:
    Thresholds and cutoffs that select k scores, or all that are positive where
    there are fewer.

  Source: DST, line 5 of algorithm 1.
  """
  del partitioning
  rows: list[Array] = []
  for path, placement in silos.placements.items():
    scores, axis = table.scores(path), placement.axis
    if axis is None:
      rows.append(scores.reshape(-1))
    else:
      rows.extend(x.reshape(-1) for x in jnp.moveaxis(scores, axis, 0))
  ids = silo_rows.row_silos(silos)
  cutoffs = [jnp.int32(0)] * len(rows)
  thresholds, selected = [], []
  for i, k in enumerate(budgets):
    members = np.flatnonzero(ids == i)
    scores = jnp.concatenate([rows[r] for r in members])
    # Beyond the last score lies 0: everything positive may be selected.
    padded = jnp.append(jnp.sort(scores, descending=True), jnp.float32(0))
    threshold = padded[jnp.minimum(k, scores.size)]
    threshold = jnp.where(k > 0, threshold, jnp.float32(jnp.inf))
    above = jnp.sum(scores > threshold, dtype=jnp.int32)
    # Denormal scores are zeros where the compiler flushes them.
    usable = (threshold >= jnp.finfo(jnp.float32).tiny) & jnp.isfinite(
      threshold
    )
    tied = (scores == threshold) & usable
    wanted = tied & (jnp.cumsum(tied, dtype=jnp.int32) <= k - above)
    ends = np.cumsum([rows[r].size for r in members])
    for r, row in zip(members, jnp.split(wanted, ends[:-1]), strict=True):
      order = jnp.arange(1, row.size + 1, dtype=jnp.int32)
      cutoffs[r] = jnp.max(jnp.where(row, order, 0), initial=0)
    thresholds.append(threshold)
    if break_ties:
      above += jnp.sum(wanted, dtype=jnp.int32)
    selected.append(above)
  nonfinite = [jnp.sum(~jnp.isfinite(row), dtype=jnp.int32) for row in rows]
  return SearchResult(
    threshold=jnp.stack(thresholds),
    cutoff=jnp.stack(cutoffs) if break_ties else None,
    selected=jnp.stack(selected),
    carry=carry,
    nonfinite=jnp.stack(nonfinite),
    passes=jnp.int32(1),
  )


def dropping_ties(search: ThresholdFn) -> ThresholdFn:
  """Returns a search that selects none of the scores that tie for the end.

  Args:
    search: any threshold function.

  Returns:
    `exact` or `by_sorting` without the ties; another search as it is.

  Example:
    >>> dropping_ties(exact).keywords
    {'break_ties': False}
  """
  for breaking in (exact, by_sorting):
    if search is breaking:
      return functools.partial(breaking, break_ties=False)
  return search


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


def _cutoff_grid(
  low: Int32[Array, ' rows'], high: Int32[Array, ' rows']
) -> Int32[Array, 'rows tie_width']:
  """Returns cutoffs that divide (low, high] into nearly equal parts."""
  parts = counting.TIE_WIDTH
  width = (high - low)[:, None]
  j = jnp.arange(1, parts + 1, dtype=jnp.int32)
  return low[:, None] + width // parts * j + width % parts * j // parts


def _narrow(
  bracket: _Bracket,
  grid: Int32[Array, 'silos width'],
  counts: Int32[Array, 'silos width'],
  budgets: Int32[Array, ' silos'],
) -> _Bracket:
  low, high, above, done = bracket
  over = counts > budgets[:, None]
  new_low = jnp.max(jnp.where(over, grid, low[:, None]), axis=1)
  new_high = jnp.min(jnp.where(over, high[:, None], grid), axis=1)
  new_above = jnp.max(jnp.where(over, above[:, None], counts), axis=1)
  low = jnp.where(done, low, new_low)
  high = jnp.where(done, high, new_high)
  above = jnp.where(done, above, new_above)
  done |= (above == budgets) | (high - low <= 1)
  return _Bracket(low, high, above, done)


def _narrow_ties(
  ties: _Ties,
  cutoffs: Int32[Array, 'rows width'],
  counts: Int32[Array, 'rows width'],
  silos: Silos,
  lacking: Int32[Array, ' silos'],
) -> _Ties:
  """Returns the brackets of cutoffs after a pass.

  The last cutoff of the first pass is the whole row. The ties of the earlier
  rows of the silo come first, and leave `wanted` of what the silo lacks.
  """
  totals = counts[:, -1]
  left = lacking[silo_rows.row_silos(silos)] - silo_rows.earlier_in_silo(
    silos, totals
  )
  wanted = jnp.where(ties.wanted < 0, jnp.clip(left, 0, totals), ties.wanted)
  over = counts > wanted[:, None]
  return _Ties(
    low=jnp.max(jnp.where(over, ties.low[:, None], cutoffs), axis=1),
    high=jnp.min(jnp.where(over, cutoffs, ties.high[:, None]), axis=1),
    wanted=wanted,
    done=(wanted == 0) | jnp.any(counts == wanted[:, None], axis=1),
  )
