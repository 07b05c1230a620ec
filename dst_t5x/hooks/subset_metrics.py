"""The metric hook: what the subset does at every step, for TensorBoard.

gradient_norm             ‖∇‖ of all gradients, before anything masks them
subset/size               parameters in the subset (count)
subset/churn              that entered it in this step (count)
subset/distance           ‖Θ − Θ⁰‖, how far the parameters are from the seed
subset/overlap_first      fraction of the first step's subset that is in it;
                          with TRACK_OVERLAP alone

With SILO_METRICS these, too:

subset/fraction           of all parameters
subset/passes             over the scores, to find the thresholds (count)
subset_threshold/SILO     scores above it were selected
subset_share/MODULE       fraction of the subset that lies in the module

T5X writes the mean over the steps since its last row, STATS_PERIOD of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array
from t5x import metrics as t5x_metrics  # type: ignore
from t5x import trainer  # type: ignore

from dst_t5x.arrays import mesh_index
from dst_t5x.arrays.paths import named_leaves
from dst_t5x.core import plans, selective, silos

# How many sums of rows are added up at a time.
_BLOCK = 256


class SubsetMetrics(trainer.WeightMetricsComputer):
  """Reports on the subset; bind it as `Trainer.weight_metrics_computer`.

  Args:
    weights: whether to report T5X's own weight metrics, too, which read all
      weights several times.
    by_silo: whether to report the metrics of every silo and module, and how
      the thresholds were found. They are many, and each takes time to compile.
  """

  def __init__(self, weights: bool = False, *, by_silo: bool = False):
    self._weights = weights
    self._by_silo = by_silo

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
    measured = states['selective'].metrics
    values = {
      'subset/size': jnp.sum(measured.subset_size.astype(jnp.float32)),
      **moves(
        plan,
        named_leaves(gradients),
        named_leaves(old_train_state.params),
        named_leaves(optimizer.target),
        definition.seed_on_device(states['selective'].seed),
        states['first'] if definition.keep_first else None,
      ),
    }
    if self._by_silo:
      values |= silo_values(plan, measured)
    metrics.update(
      {
        name: t5x_metrics.AveragePerStep.from_model_output(value)
        for name, value in values.items()
      }
    )
    return metrics


def silo_values(
  plan: plans.Plan, measured: selective.SelectionMetrics
) -> dict[str, jax.Array]:
  """Returns what the step says of every silo, and of its search.

  Args:
    plan: of the run.
    measured: what the step measured.

  Returns:
    float32 scalars by name.
  """
  sizes = measured.subset_size.astype(jnp.float32)
  size = jnp.sum(sizes)
  values = {
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
  gradients: Mapping[str, jax.Array],
  old: Mapping[str, jax.Array],
  new: Mapping[str, jax.Array],
  seed: Mapping[str, jax.Array],
  first: Mapping[str, jax.Array] | None,
) -> dict[str, jax.Array]:
  """Returns norms, churn and overlap, from one pass over everything.

  ‖∇‖, ‖Θ − Θ⁰‖, |S_t − S_{t−1}| and |S₁ ∩ S_t| / |S₁|, with S the parameters
  that differ from the seed.

  Every device sums up its own part, and one small all-reduce adds the sums. A
  count is exact up to 2²⁴, and rounded to a float32 beyond.

  Args:
    plan: of the run.
    gradients: by path.
    old: parameters before the step, by path.
    new: after it.
    seed: Θ⁰.
    first: bool, S₁; None if it is not kept.

  Returns:
    float32[] by name.

  Source: DST, equation 9, for two steps of one run.
  """
  operands = {
    path: (gradients[path], old[path], new[path], seed[path])
    + (() if first is None else (first[path],))
    for path in new
  }
  placed = plan.partitioning
  if placed is None:
    totals = _totals([_row_sums(*each) for each in operands.values()])
  else:

    def local(operands: Mapping[str, tuple[Array, ...]]) -> Array:
      sums = [
        _row_sums(*_own_parts(each, placed.specs[path], placed.mesh))
        for path, each in operands.items()
      ]
      return jax.lax.psum(_totals(sums), placed.mesh.axis_names)

    totals = jax.shard_map(
      local,
      mesh=placed.mesh,
      in_specs=(
        {
          path: (placed.specs[path],) * len(operands[path]) for path in operands
        },
      ),
      out_specs=PartitionSpec(),
      check_vma=False,
    )(operands)
  values = {
    'gradient_norm': jnp.sqrt(totals[0]),
    'subset/distance': jnp.sqrt(totals[1]),
    # `subsets.entered` counts churn as well, for the runner without T5X: from
    # the mask of the step, which nobody has after it.
    'subset/churn': totals[2],
  }
  if first is not None:
    values['subset/overlap_first'] = totals[4] / jnp.maximum(totals[3], 1.0)
  return values


def _row_sums(
  gradient: Array, old: Array, new: Array, seed: Array, *first: Array
) -> tuple[Array, ...]:
  """Returns sums along the last axis, all of them read in one loop."""
  differs = new != seed
  moved = new.astype(jnp.float32) - seed.astype(jnp.float32)
  columns = (
    jnp.square(gradient.astype(jnp.float32)),
    jnp.square(moved),
    differs & (old == seed),
    *(column for kept in first for column in (kept, kept & differs)),
  )
  columns = tuple(
    (x.astype(jnp.int32) if x.dtype == jnp.bool_ else x).reshape(
      x.shape or (1,)
    )
    for x in columns
  )
  return tuple(
    jax.lax.reduce(
      columns,
      tuple(np.zeros((), x.dtype) for x in columns),
      lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)),
      (columns[0].ndim - 1,),
    )
  )


def _totals(row_sums: Sequence[tuple[Array, ...]]) -> Array:
  """Returns float32 sums of the columns, over the rows of all tensors.

  Rows, blocks of them and blocks are added up one after the other, so that a
  sum of float32 is never of more than some thousand numbers, of which the last
  would be lost, and none of int32 is of a whole tensor.
  """
  # Without barriers XLA joins the sums into one.
  row_sums = jax.lax.optimization_barrier(list(row_sums))
  blocks = []
  for column in zip(*row_sums, strict=True):
    rows = jnp.concatenate([x.reshape(-1) for x in column])
    rows = jnp.pad(rows, (0, -rows.size % _BLOCK)).reshape(-1, _BLOCK)
    blocks.append(jnp.sum(rows, axis=1, dtype=rows.dtype))
  blocks = jax.lax.optimization_barrier(blocks)
  return jnp.stack([jnp.sum(x.astype(jnp.float32)) for x in blocks])


def _own_parts(
  shards: tuple[Array, ...], spec: PartitionSpec, mesh: Mesh
) -> list[Array]:
  """Returns the part of a tensor's shards that this device sums up.

  What is not its own is zeros, which are in no subset.
  """
  shape = shards[0].shape
  names = mesh_index.by_dimension(spec, len(shape))
  sharded = {name for each in names for name in each}
  holders = mesh_index.copies(mesh, sharded, shape)
  return mesh_index.own_parts(shards, holders, mesh, nothing=0)
