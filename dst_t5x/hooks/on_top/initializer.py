"""How a run begins whose configuration knows nothing of this package."""

import copy
from typing import Any

from absl import logging

from dst_t5x.core import plans, rates
from dst_t5x.core.methods import Method, SiloScheme
from dst_t5x.hooks import best, restore, steps
from dst_t5x.hooks.base_rate import BaseRate
from dst_t5x.hooks.on_top.user_checkpoints import OnTopError, restored_path
from dst_t5x.hooks.optimizer import Selective


class TrainInitializer(restore.TrainInitializer):
  """Begins a run of a user's own configuration at its seed.

  T5X gives the first five arguments, `bindings` most others.

  Args:
    optimizer_def: the model's; it becomes the inner optimizer.
    init_fn: the model's.
    input_shapes: of a batch.
    partitioner: with rules for all of the model's axes.
    input_types: of a batch.
    method: see `dst_t5x.core.methods`.
    checkpoint_cfg: T5X's `CheckpointConfig`; what it restores is the seed.
    model_dir: where the run keeps its checkpoints.
    total_steps: where T5X's step count ends (count); the seed's own included.
    relative_steps: the run's own steps (count), instead of `total_steps`.
    random_seed: of the subsets that some methods draw; None for 0.
    base_rate: of the trainer's schedule; None if nobody knows it.
    factors: of the trainer's schedule.
    seed_path: of the seed, instead of what `checkpoint_cfg` restores.
    epsilon: fraction of all parameters in (0, 1].
    budget: number of parameters (count), instead of `epsilon`.
    silos: scheme or rules instead of the method's own.
    inner_state: 'full' saves the inner optimizer's state, 'none' leaves it out.
    track_overlap: whether a metric compares the subset with the first step's;
      None for what the run that goes on does.

  Raises:
    OnTopError: if there is no seed, or the seed cannot be read as the
      configuration would restore it.
    ManifestError, SeedError, SiloError, ValueError: as
      `restore.TrainInitializer`.
  """

  def __init__(
    self,
    optimizer_def: Any,
    init_fn: Any,
    input_shapes: Any,
    partitioner: Any,
    input_types: Any = None,
    *,
    method: Method,
    checkpoint_cfg: Any,
    model_dir: str,
    total_steps: int | None = None,
    relative_steps: int | None = None,
    random_seed: int | None = None,
    base_rate: float | None = None,
    factors: str | None = None,
    seed_path: str | None = None,
    epsilon: float | None = None,
    budget: int | None = None,
    silos: SiloScheme | None = None,
    inner_state: str = 'full',
    track_overlap: bool | None = None,
  ):
    seed_path = seed_path or restored_path(checkpoint_cfg)
    start = steps.of_seed(seed_path)
    total_steps = start + relative_steps if relative_steps else total_steps
    if total_steps is None:
      raise OnTopError('the run has no end: set TRAIN_STEPS')
    save = checkpoint_cfg.save
    optimizer = Selective(
      from_the_seed_on(optimizer_def, start),
      method,
      epsilon=epsilon,
      budget=budget,
      silos=silos,
      keep_first=track_overlap,
      random_seed=random_seed,
    )
    super().__init__(
      optimizer_def=optimizer,
      init_fn=init_fn,
      input_shapes=input_shapes,
      partitioner=partitioner,
      input_types=input_types,
      seed_path=seed_path,
      model_dir=model_dir,
      total_steps=total_steps,
      inner_state=inner_state,
      restore_dataset=bool(save and save.save_dataset),
      base_rate=None
      if base_rate is None
      else BaseRate(base_rate, False, 'base_learning_rate'),
      best_metric=best.monitored(save.checkpointer_cls) if save else None,
    )
    if base_rate is not None and factors == 'constant':
      plan = optimizer.plan(self.global_train_state_shape.params)
      _advise_on_rate(base_rate, optimizer, plan)

  def _check_restore(self, method: Method) -> None:
    """Does nothing: `without_seed` leaves T5X nothing to restore."""
    del method


def from_the_seed_on(optimizer_def: Any, start: int) -> Any:
  """Returns an optimizer that counts the run's own steps from 0.

  A configuration that fine-tunes with T5X subtracts the seed's steps by
  `step_offset`; our hooks hand over a count without them.

  Args:
    optimizer_def: T5X's.
    start: the seed's step (count).

  Returns:
    The same optimizer, or a copy without that offset.

  Raises:
    OnTopError: if there is no optimizer, or it is one of ours already.
  """
  if optimizer_def is None or isinstance(optimizer_def, Selective):
    what = 'no optimizer' if optimizer_def is None else 'optimizer.Selective'
    raise OnTopError(
      f"the model's optimizer_def is {what}, and hosts/on_top_t5x.gin wraps "
      "T5X's own: bind that one"
    )
  hyper_params: Any = getattr(optimizer_def, 'hyper_params', None)
  if not start or getattr(hyper_params, 'step_offset', 0) != start:
    return optimizer_def
  logging.info(
    "step_offset = %d, the seed's own steps, is left out: the inner optimizer "
    "counts the run's steps, from 0.",
    start,
  )
  optimizer_def = copy.copy(optimizer_def)
  optimizer_def.hyper_params = hyper_params.replace(step_offset=0)
  return optimizer_def


def _advise_on_rate(
  rate: float, optimizer: Selective, plan: plans.Plan
) -> None:
  """Warns of a rate that is far below the rule for the method and budget."""
  scaled = getattr(optimizer.hyper_params, 'multiply_by_parameter_scale', False)
  if scaled is not True or optimizer.method.score is None:
    return
  rule = rates.for_method(
    optimizer.method, budget=plan.budget, total=plan.total
  )
  if rate < rule / 3:
    logging.warning(
      'The base learning rate of this configuration is %g. For %s at %d of %d '
      'parameters the rule for Adafactor is %.3g, since a smaller subset takes '
      'larger steps: --gin.LEARNING_RATE=%.3g takes it.',
      rate,
      optimizer.method.name,
      plan.budget,
      plan.total,
      rule,
      rule,
    )
