"""What is checked before T5X saves a train state, when a run begins and ends.

T5X looks at no loss, and goes on saving when everything is NaN. A state that
must not be saved ends the run instead, so that the checkpoint before it stays
the newest. All processes of a mesh get the same numbers from the devices, and
so they all stop in the same place.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from dst_t5x.arrays.paths import named_leaves
from dst_t5x.checkpoint import delta_checkpoint
from dst_t5x.core import plans, selective, validity
from dst_t5x.core.selective import NonFiniteScoreError
from dst_t5x.core.validity import NonFiniteParameterError
from dst_t5x.hooks import best, datasets


def check(
  plan: plans.Plan,
  params: Mapping[str, Any],
  kept: selective.SelectiveState,
  *,
  step: int,
  model_dir: str,
  best_metric: str | None = None,
) -> None:
  """Raises if a state must not be saved, and warns of a metric without values.

  Args:
    plan: of the run.
    params: Θ by path.
    kept: state of the method after the same step.
    step: of T5X's count.
    model_dir: where the run keeps its checkpoints.
    best_metric: by which T5X keeps the best of them; None if it does not.

  Raises:
    NonFiniteParameterError: if a parameter is NaN or infinite where the seed is
      finite; for a method that keeps no seed, wherever it is.
    NonFiniteScoreError: if a score was NaN or infinite.
  """
  counts = validity.nonfinite_counts(params, named_leaves(kept.seed))
  if counts:
    raise NonFiniteParameterError(
      f'at step {step}, {validity.describe(counts)}. '
      f'{_what_to_do(step, model_dir)}'
    )
  if best_metric is not None:
    best.warn_if_unscored(model_dir, best_metric)
  try:
    selective.raise_if_invalid(plan, kept)
  except NonFiniteScoreError as error:
    raise NonFiniteScoreError(
      f'at step {step}, {error}. {_what_to_do(step, model_dir)}'
    ) from None


def check_train_state(train_state: Any) -> None:
  """Raises if a train state of T5X must not be saved.

  Args:
    train_state: T5X's; of shapes, and with another optimizer than
      `optimizer.Selective`, there is nothing to check.

  Raises:
    NonFiniteParameterError, NonFiniteScoreError: as `check`.
  """
  optimizer = getattr(train_state, '_optimizer', None)
  if hasattr(getattr(optimizer, 'optimizer_def', None), 'raise_if_invalid'):
    state: Any = optimizer
    state.optimizer_def.raise_if_invalid(state.target, state.state)


def has_values(tree: Any) -> bool:
  """Returns whether all leaves are arrays; not shapes, axes or traced.

  Args:
    tree: any pytree.

  Returns:
    Whether they are.

  Example:
    >>> has_values([np.ones(2)]), has_values([jax.ShapeDtypeStruct((2,), int)])
    (True, False)
  """
  return all(
    isinstance(leaf, (jax.Array, np.ndarray)) and not isinstance(leaf, Tracer)
    for leaf in jax.tree.leaves(tree)
  )


def checked_trainer(*, trainer_cls: Any, **options: Any) -> Any:
  """Returns a trainer; bind it as `trainer_cls` of T5X's `train`.

  What T5X saves is checked there. This checks a run's first state, which may
  come from a checkpoint, and its last, which T5X need not save.

  Args:
    trainer_cls: makes the trainer, such as T5X's `Trainer`.
    **options: its arguments, which T5X gives.

  Returns:
    The trainer.

  Raises:
    NonFiniteParameterError, NonFiniteScoreError: as `check`; for the last
      state, from the trainer's `close`.
  """
  trainer = trainer_cls(**options)
  check_train_state(trainer.train_state)
  close = trainer.close

  def close_and_check() -> None:
    close()
    check_train_state(trainer.train_state)

  trainer.close = close_and_check
  return trainer


def _what_to_do(step: int, model_dir: str) -> str:
  newest = delta_checkpoint.latest(model_dir) if model_dir else None
  if newest and datasets.step_of(newest) == step:
    return (
      f'The run resumed from {newest}, which already holds this: remove that '
      'checkpoint, and the same command resumes from the one before it'
    )
  if newest:
    kept = (
      f'the last good checkpoint is {newest}, where the same command resumes. '
      'So that it does not end here again'
    )
  else:
    kept = 'there is no earlier checkpoint. Before you start again'
  return (
    f'Nothing of this step is saved; {kept}, lower LEARNING_RATE, clip the '
    'gradients in OPTIMIZER, or look for bad values in the data and in the '
    'seed; MODEL_DIR may stay'
  )
