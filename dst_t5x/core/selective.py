"""The whole step, on one page. Read this first.

  seed Θ⁰ + gradients
    → the inner optimizer proposes Θ̂          propose
    → score of every parameter                 scores
    → k-th largest score of every silo         silos, thresholds
    → subset                                   schedules, subsets
    → Θ: Θ̂ inside the subset, Θ⁰ outside      resets

Methods whose score does not read the proposal choose the subset first and may
mask the gradient, so that the inner optimizer works on the subset alone.

This module knows no method by name. Hosts call `init`, `step` and
`raise_if_invalid`; everything between is pure and can be jitted.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

from dst_t5x.arrays.paths import named_leaves
from dst_t5x.core import counting, schedules, subsets, thresholds
from dst_t5x.core.counting import ScoreTable
from dst_t5x.core.plans import Plan
from dst_t5x.core.resets import reset
from dst_t5x.core.thresholds import SearchResult

# (gradients, inner state, parameters) → (proposed parameters, inner state)
ProposeFn = Callable[[Any, Any, Any], tuple[Any, Any]]


class NonFiniteScoreError(ValueError):
  """A score was NaN or infinite; the parameters of that step are not usable."""


class SelectionMetrics(NamedTuple):
  """What the last step did.

  Attributes:
    subset_size: int32[silos], parameters in the subset (count).
    churn: int32[], parameters that entered it in this step (count); −1 if
      nobody counted them.
    threshold: float32[silos], scores above it were selected.
    passes: int32[], how often the scores were read to find it.
  """

  subset_size: Int32[Array, ' silos']
  churn: Int32[Array, '']
  threshold: Float32[Array, ' silos']
  passes: Int32[Array, '']


class SelectiveState(NamedTuple):
  """Everything a step needs besides parameters and gradients.

  Attributes:
    count: int32[], our own steps taken; the host's may include pretraining.
    inner: state of the inner optimizer.
    seed: Θ⁰, a copy of the parameters' tree; () if nothing is ever reset.
    masks: bool, the kept subset by path; () if it is chosen anew each step.
    carry: float32[silos], where the next threshold search starts.
    nonfinite: int32[rows], steps in which a score was NaN or infinite
      (count), one number for every name in `counting.row_names`.
    key: uint32[2], random bits for methods that draw.
    metrics: of the last step.
  """

  # As in optax's states, the field hides tuple.count, which nobody calls.
  count: Int32[Array, '']  # pyright: ignore[reportIncompatibleMethodOverride]
  inner: Any
  seed: Any
  masks: Any
  carry: Float32[Array, ' silos']
  nonfinite: Int32[Array, ' rows']
  key: Any
  metrics: SelectionMetrics


def init(
  plan: Plan, seed: Any, inner: Any, *, key: jax.Array | None = None
) -> SelectiveState:
  """Returns the state before the first step.

  Args:
    plan: see `plans.make`.
    seed: Θ⁰. It is copied, so the host may donate its parameters.
    inner: initial state of the inner optimizer.
    key: PRNG key for methods that draw at random; None stands for key 0.

  Returns:
    The state.
  """
  size = len(plan.silos.names)
  selects = plan.method.score is not None
  keeps = selects and plan.method.schedule.keep
  key = jax.random.key(0) if key is None else key
  return SelectiveState(
    count=jnp.int32(0),
    inner=inner,
    seed=jax.tree.map(jnp.copy, seed) if selects else (),
    masks=_no_masks(seed) if keeps else (),
    carry=jnp.zeros(size, jnp.float32),
    nonfinite=jnp.zeros(len(counting.row_names(plan.silos)), jnp.int32),
    key=jax.random.key_data(key),
    metrics=SelectionMetrics(
      subset_size=jnp.zeros(size, jnp.int32),
      churn=jnp.int32(0),
      threshold=jnp.full(size, jnp.inf, jnp.float32),
      passes=jnp.int32(0),
    ),
  )


def step(
  plan: Plan,
  propose: ProposeFn,
  gradients: Any,
  state: SelectiveState,
  params: Any,
  *,
  count_churn: bool = True,
) -> tuple[Any, SelectiveState]:
  """Returns the parameters and the state after one step.

  Afterwards at most k parameters of every silo differ from the seed, and all
  others are the seed's bit for bit, whatever the inner optimizer did: weight
  decay, momentum and clipping are part of the proposal.

  Args:
    plan: see `plans.make`.
    propose: the inner optimizer: takes gradients, its state and the
      parameters, returns Θ̂ and its new state.
    gradients: of the loss, same tree as the parameters.
    state: from `init` or the last step.
    params: Θ.
    count_churn: False saves the pass over all parameters that it takes, for
      hosts that do not report it at every step.

  Returns:
    The new parameters, and the new state, whose `metrics` tell what happened.

  Source: DST, algorithm 1; ID3, algorithm 1.
  """
  method = plan.method
  if method.score is None:
    proposed, inner = propose(gradients, state.inner, params)
    return proposed, state._replace(count=state.count + 1, inner=inner)

  if 'proposed' in method.score.reads:
    proposed, inner = propose(gradients, state.inner, params)
    # Scores are read several times: every reader must see the same bits, which
    # a compiler that fuses the update into each reader does not promise.
    proposed = jax.lax.optimization_barrier(proposed)
    masks, state = _choose(
      plan, state, params, gradients, proposed, count_churn
    )
  else:
    masks, state = _choose(plan, state, params, gradients, None, count_churn)
    if method.mask_gradients:
      gradients = _map(
        lambda g, m: jnp.where(m, g, jnp.zeros_like(g)), gradients, masks
      )
    proposed, inner = propose(gradients, state.inner, params)
  new = _map(
    lambda p, m, s: reset(m, p, s), proposed, masks, named_leaves(state.seed)
  )
  return new, state._replace(count=state.count + 1, inner=inner)


def raise_if_invalid(plan: Plan, state: SelectiveState) -> None:
  """Raises if a score was ever NaN or infinite. Call it before saving.

  The step itself only counts such scores, so that no step waits for the host.

  Args:
    plan: see `plans.make`.
    state: after any number of steps.

  Raises:
    NonFiniteScoreError: names the parameters.
  """
  raise_if_bad_scores(counting.row_names(plan.silos), state)


def raise_if_bad_scores(names: Sequence[str], state: SelectiveState) -> None:
  """Raises if a score was ever NaN or infinite, where there is no plan.

  Args:
    names: of the rows of `state.nonfinite`.
    state: after any number of steps.

  Raises:
    NonFiniteScoreError: names the rows.
  """
  counts = np.asarray(state.nonfinite)
  if not counts.any():
    return
  bad = [f'{names[i]} ({counts[i]})' for i in np.flatnonzero(counts).tolist()]
  shown = ', '.join(bad[:8]) + (', …' if len(bad) > 8 else '')
  raise NonFiniteScoreError(
    f'scores were NaN or infinite in: {shown} (in how many of the '
    f'{int(state.count)} steps); the gradients or the update overflowed: lower '
    'the learning rate, clip the gradients, or look for bad values in the seed '
    'and the data'
  )


def _choose(
  plan: Plan,
  state: SelectiveState,
  params: Any,
  gradients: Any,
  proposed: Any,
  count_churn: bool,
) -> tuple[subsets.Masks, SelectiveState]:
  """Returns the subset and a state that knows how it was found."""
  schedule = plan.method.schedule
  seed, current = named_leaves(state.seed), named_leaves(params)

  def table() -> ScoreTable:
    return _scores(plan, state, params, gradients, proposed)

  if not schedule.keep:
    scores = table()
    budgets = schedules.target(schedule, state.count, plan.budgets)
    # The next step chooses anew; what ties now is not worth its compile time.
    search = thresholds.dropping_ties(plan.method.threshold)

    def find() -> SearchResult:
      return search(scores, plan.silos, budgets, state.carry, plan.partitioning)

    # This branch is always taken. What a branch reads is computed once before
    # it, on a CPU as well, whose compiler heeds no other barrier.
    nothing = jax.tree.map(
      lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(find)
    )
    result = jax.lax.cond(state.count >= 0, find, lambda: nothing)
    masks = subsets.chosen(scores, plan.silos, result)
    size = result.selected
    churn = jnp.int32(-1)
    if count_churn:
      churn = subsets.entered(
        masks, current, seed, silos=plan.silos, partitioning=plan.partitioning
      )
  else:
    assert schedule.steps is not None  # plans.make has filled it in
    held = state.metrics.subset_size
    budgets = schedules.target(schedule, state.count, plan.budgets) - held

    def grow(masks: subsets.Masks) -> tuple[subsets.Masks, SearchResult]:
      scores = subsets.without(table(), masks)
      result = plan.method.threshold(
        scores, plan.silos, budgets, state.carry, plan.partitioning
      )
      new = subsets.chosen(scores, plan.silos, result)
      new_masks = {p: masks[p] | new[p] for p in masks}
      return new_masks, result._replace(cutoff=None)

    def stay(masks: subsets.Masks) -> tuple[subsets.Masks, SearchResult]:
      return masks, SearchResult(
        threshold=state.metrics.threshold,
        cutoff=None,
        selected=jnp.zeros_like(held),
        carry=state.carry,
        nonfinite=jnp.zeros_like(state.nonfinite),
        passes=jnp.int32(0),
      )

    # Past its last step a schedule adds nothing more, not even where scores of
    # 0 left some of the budget: what is chosen once is never chosen again.
    growing = state.count < schedule.steps
    masks, result = jax.lax.cond(growing, grow, stay, state.masks)
    size = held + result.selected
    churn = jnp.sum(result.selected, dtype=jnp.int32)
    state = state._replace(masks=masks)
  return masks, state._replace(
    carry=result.carry,
    nonfinite=state.nonfinite + jnp.minimum(result.nonfinite, 1),
    metrics=SelectionMetrics(
      subset_size=size,
      churn=churn,
      threshold=result.threshold,
      passes=result.passes,
    ),
  )


def _scores(
  plan: Plan,
  state: SelectiveState,
  params: Any,
  gradients: Any,
  proposed: Any,
) -> ScoreTable:
  score = plan.method.score
  assert score is not None
  sources: dict[str, Mapping[str, jax.Array]] = {
    'seed': named_leaves(state.seed),
    'params': named_leaves(params),
    'gradient': named_leaves(gradients),
    'proposed': named_leaves(proposed) if proposed is not None else {},
  }
  if 'noise' in score.reads:
    sources['noise'] = _noise(state.key, sources['seed'])
  if 'eligible' in score.reads:
    sources['eligible'] = {
      path: jnp.full(
        x.shape, plan.eligible is None or path in plan.eligible, jnp.float32
      )
      for path, x in sources['seed'].items()
    }
  operands = {
    path: tuple(sources[name][path] for name in score.reads)
    for path in sources['seed']
  }
  if score.recompute:
    return ScoreTable(score.fn, operands)
  values = {path: score.fn(*arrays) for path, arrays in operands.items()}
  values = jax.lax.optimization_barrier(values)
  return ScoreTable(lambda x: x, {path: (x,) for path, x in values.items()})


def _noise(
  key: jax.Array, params: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
  """Returns random bits that depend on the key and the tensor's rank by path.

  They have the shapes of the parameters, whose values are not read.
  """
  keys = jax.random.split(jax.random.wrap_key_data(key), len(params))
  return {
    path: jax.random.bits(keys[i], params[path].shape, jnp.uint32)
    for i, path in enumerate(sorted(params))
  }


def _no_masks(params: Any) -> subsets.Masks:
  return {
    # On the devices that the parameter is on, in the same parts.
    path: jnp.zeros_like(x, jnp.bool_)
    for path, x in named_leaves(params).items()
  }


def _map(fn: Callable[..., Any], tree: Any, *flat: Mapping[str, Any]) -> Any:
  """Maps over a tree and over the leaves of the same path in flat dicts."""
  leaves = named_leaves(tree)
  new = [fn(leaf, *(f[path] for f in flat)) for path, leaf in leaves.items()]
  return jax.tree.unflatten(jax.tree.structure(tree), new)
