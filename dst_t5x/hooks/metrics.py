"""The metric hook: what the subset does, at every step, in TensorBoard.

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

from dst_t5x import counting, selective, silos
from dst_t5x.paths import named_leaves


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
    if definition.keep_first:
      values['subset/overlap_first'] = overlap_first(
        plan, states['first'], optimizer.target, states['selective'].seed
      )
    metrics.update(
      {
        name: t5x_metrics.AveragePerStep.from_model_output(value)
        for name, value in values.items()
      }
    )
    return metrics


def subset_values(
  plan: Any, measured: selective.SelectionMetrics
) -> dict[str, jax.Array]:
  """Returns what is reported of a step.

  Args:
    plan: of the run.
    measured: by the step.

  Returns:
    float32 scalars by name.
  """
  sizes = measured.subset_size.astype(jnp.float32)
  size = jnp.sum(sizes)
  values = {
    'subset/size': size,
    'subset/fraction': size / plan.total,
    'subset/churn': measured.churn.astype(jnp.float32),
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
    >>> from dst_t5x.silos import assign
    >>> shapes = {f'encoder/layers_{i}/mlp/wi/kernel': (2, 2) for i in (0, 1)}
    >>> modules(assign(shapes))
    {'encoder/mlp': [0, 1]}
  """
  found: dict[str, list[int]] = {}
  for number, name in enumerate(partition.names):
    parts = [
      part
      for part in name.split('[')[0].split('/')
      if part != 'layers' and not part.startswith('layers_')
    ]
    found.setdefault('/'.join(parts), []).append(number)
  return found


def overlap_first(plan: Any, first: Any, target: Any, seed: Any) -> jax.Array:
  """Returns how much of the first step's subset is in the present one.

  |S₁ ∩ S_t| / |S₁|, with S the parameters that differ from the seed.

  Args:
    plan: of the run.
    first: bool, by path.
    target: the parameters.
    seed: Θ⁰.

  Returns:
    float32[], a fraction.

  Source: DST, equation 9, for two steps of one run.
  """
  now, base = named_leaves(target), named_leaves(seed)

  def both(mask: jax.Array, param: jax.Array, seed: jax.Array) -> jax.Array:
    # 1 in the first subset alone, 2 in both.
    inside = mask.astype(jnp.float32)
    return inside + inside * (param != seed).astype(jnp.float32)

  table = counting.ScoreTable(
    both, {path: (mask, now[path], base[path]) for path, mask in first.items()}
  )
  bounds = jnp.broadcast_to(jnp.float32([0.5, 1.5]), (len(plan.silos.names), 2))
  counts = jnp.sum(
    counting.count(table, plan.silos, bounds, layout=plan.layout).astype(
      jnp.float32
    ),
    axis=0,
  )
  return counts[1] / jnp.maximum(counts[0], 1.0)
