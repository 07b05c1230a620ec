"""The learning rate of a run inside T5X: given, or by the rule of `core.rates`.

T5X wants the number when gin builds the trainer, before there is a model. So
the parameters are counted in the seed's checkpoint, whose shapes are read and
whose arrays are not.
"""

from typing import Any, NamedTuple

from absl import logging
from t5x import adafactor  # type: ignore

from dst_t5x.core import plans, rates
from dst_t5x.core.methods import Method
from dst_t5x.seeds import sharded

_SETTING = 'LEARNING_RATE'


class BaseRate(NamedTuple):
  """What T5X's schedule multiplies, and where it comes from.

  Attributes:
    rate: the learning rate, before any schedule.
    by_default: whether the rule chose it.
    setting: what gives another rate.
  """

  rate: float
  by_default: bool
  setting: str = _SETTING


def chosen(
  *,
  learning_rate: float | None,
  optimizer: Any,
  method: Method,
  epsilon: float | None,
  budget: int | None,
  seed_path: str,
) -> BaseRate:
  """Returns the base learning rate of a run.

  Args:
    learning_rate: the rate, or None for the rule's.
    optimizer: the inner optimizer; the rule holds for Adafactor alone.
    method: see `core.methods`.
    epsilon: fraction of all parameters in (0, 1].
    budget: number of parameters (count), instead of `epsilon`.
    seed_path: of the seed; opened only if the rule is asked.

  Returns:
    The rate, and whether the rule chose it.

  Raises:
    NoDefaultRateError: if no rate is given with an optimizer whose steps are
      not relative to the parameters, as far as one can tell.
    SeedError: if the seed cannot be read.
    SiloError: if the budget is wrong.
  """
  if learning_rate is not None:
    return BaseRate(learning_rate, by_default=False)
  scaled = isinstance(optimizer, adafactor.Adafactor) and (
    optimizer.hyper_params.multiply_by_parameter_scale is True
  )
  if not scaled:
    raise rates.no_default(
      f'{type(optimizer).__name__} (OPTIMIZER)', f'{_SETTING} a number'
    )
  source = sharded.open_source(seed_path, macro='INITIAL_CHECKPOINT_PATH')
  rate = rates.for_params(
    method, dict(source.specs()), epsilon=epsilon, budget=budget
  )
  return BaseRate(rate, by_default=True)


def number(base_rate: BaseRate) -> float:
  """Returns the rate alone, as T5X's schedules take it.

  Example:
    >>> number(BaseRate(0.1, by_default=False))
    0.1
  """
  return base_rate.rate


def log(base_rate: BaseRate, plan: plans.Plan) -> None:
  """Logs which rate a run has, and why.

  Args:
    base_rate: see `chosen`.
    plan: of the run.
  """
  logging.info(
    'The run begins with the %s.',
    rates.describe(
      base_rate.rate,
      method=plan.method,
      budget=plan.budget,
      total=plan.total,
      by_default=base_rate.by_default,
      setting=base_rate.setting,
    ),
  )
