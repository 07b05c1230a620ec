"""The metric hook: what the subset does at every step, for TensorBoard.

subset/size               parameters in the subset (count)
subset/fraction           of all parameters
subset/churn              that entered it in this step (count)
subset/overlap_first      fraction of the first step's subset that is in it
subset/passes             over the scores, to find the thresholds (count)
subset_threshold/SILO     scores above it were selected
subset_share/MODULE       fraction of the subset that lies in the module
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from t5x import metrics as t5x_metrics  # type: ignore
from t5x import trainer  # type: ignore

from dst_t5x.arrays.paths import named_leaves
from dst_t5x.core import counting, plans, selective, silos


class SubsetMetrics(trainer.WeightMetricsComputer):
  """Reports on the subset; bind it as `Trainer.weight_metrics_computer`.

  Args:
    weights: whether to report T5X's own weight metrics, too, which read all
      weights several times.
  """

  def __init__(self, weights: bool = False):
    self._weights = weights

  def compute_metrics(
    self, gradients: Any, old_train_state: Any, new_train_state: Any
  ) -> dict[str, Any]:
    """Returns the metrics of one step, inside the train step."""
    metrics = {}
    if self._weights:
      metrics.update(
        super().compute_metrics(gradients, old_train_state, new_train_state)
      )
    optimizer = new_train_state._optimizer
    definition = optimizer.optimizer_def
    if definition.method.score is None:
      return metrics
    plan = definition.plan(optimizer.target)
    states = optimizer.state.param_states
    values = subset_values(plan, states['selective'].metrics)
    values |= moves(
      plan,
      named_leaves(old_train_state.params),
      named_leaves(optimizer.target),
      definition.seed_on_device(states['selective'].seed),
      states['first'] if definition.keep_first else None,
    )
    metrics.update(
      {
        name: t5x_metrics.AveragePerStep.from_model_output(value)
        for name, value in values.items()
      }
    )
    return metrics


def subset_values(
  plan: plans.Plan, measured: selective.SelectionMetrics
) -> dict[str, jax.Array]:
  """Returns what the step itself says of its subset.

  Args:
    plan: of the run.
    measured: what the step measured.

  Returns:
    float32 scalars by name.
  """
  sizes = measured.subset_size.astype(jnp.float32)
  size = jnp.sum(sizes)
  values = {
    'subset/size': size,
    # A float: JAX takes a whole number for int32, and XL has more than 2³¹.
    'subset/fraction': size / float(plan.total),
    'subset/passes': measured.passes.astype(jnp.float32),
  }
  for number, name in enumerate(plan.silos.names):
    values[f'subset_threshold/{name}'] = measured.threshold[number]
  for module, numbers in modules(plan.silos).items():
    share = sum(sizes[number] for number in numbers)
    values[f'subset_share/{module}'] = share / jnp.maximum(size, 1.0)
  return values


def modules(partition: silos.Silos) -> Mapping[str, list[int]]:
  """Returns the silos of every module, all layers of it together.

  Args:
    partition: the silos.

  Returns:
    Numbers of silos by module.

  Example:
    >>> from dst_t5x.core.silos import assign
    >>> shapes = {f'encoder/layers_{i}/mlp/wi/kernel': (2, 2) for i in (0, 1)}
    >>> modules(assign(shapes))
    {'encoder/mlp': [0, 1]}
  """
  numbers: dict[str, list[int]] = {}
  for number, name in enumerate(partition.names):
    parts = [
      part
      for part in name.split('[')[0].split('/')
      if part != 'layers' and not part.startswith('layers_')
    ]
    numbers.setdefault('/'.join(parts), []).append(number)
  return numbers


def moves(
  plan: plans.Plan,
  old: Mapping[str, jax.Array],
  new: Mapping[str, jax.Array],
  seed: Mapping[str, jax.Array],
  first: Mapping[str, jax.Array] | None,
) -> dict[str, jax.Array]:
  """Returns churn and overlap, from one pass over the parameters together.

  |S_t − S_{t−1}| and |S₁ ∩ S_t| / |S₁|, with S the parameters that differ from
  the seed.

  Args:
    plan: of the run.
    old: parameters before the step, by path.
    new: after it.
    seed: Θ⁰.
    first: bool, S₁; None if it is not kept.

  Returns:
    float32[] by name: a count and a fraction.

  Source: DST, equation 9, for two steps of one run.
  """

  # `subsets.entered` counts churn as well, for the runner without T5X: from the
  # mask of the step, which nobody has after it, and as a whole number. Here it
  # is counted from the parameters, as a float, in the pass that the overlap
  # needs anyway; to use that function as well would be one more pass.
  def code(
    old: jax.Array, new: jax.Array, seed: jax.Array, *first: jax.Array
  ) -> jax.Array:
    # 1 for one that enters, 2 for S₁, 4 for S₁ and S_t, and their sums.
    differs = new != seed
    entered = (differs & (old == seed)).astype(jnp.float32)
    if not first:
      return entered
    weight = jnp.where(differs, jnp.float32(4), jnp.float32(2))
    return entered + jnp.where(first[0], weight, jnp.float32(0))

  operands = {
    path: (old[path], new[path], seed[path])
    + (() if first is None else (first[path],))
    for path in new
  }
  bounds = jnp.arange(5, dtype=jnp.float32) + 0.5
  counts = counting.count(
    counting.ScoreTable(code, operands),
    plan.silos,
    jnp.broadcast_to(bounds, (len(plan.silos.names), bounds.size)),
    partitioning=plan.partitioning,
  )
  # How many codes are at least 1, 2, … 5; exactly n is a difference of two.
  least = jnp.sum(counts.astype(jnp.float32), axis=0)
  # Codes are 0, 1, 2, 4 and 5: 3 would enter S_t without being in it.
  values = {'subset/churn': least[0] - least[1] + least[4]}
  if first is not None:
    values['subset/overlap_first'] = least[3] / jnp.maximum(least[1], 1.0)
  return values
