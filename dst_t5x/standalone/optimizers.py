"""Inner optimizers: functions of a learning rate that return optax ones.

Any function `learning_rate → optax.GradientTransformation` will do; these are
the three that the command line knows by name. Clipping and weight decay are
part of what they propose.
"""

from collections.abc import Callable

import optax

from dst_t5x.arrays import known_names

Optimizer = Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]


def adafactor(
  learning_rate: optax.ScalarOrSchedule,
  *,
  momentum: float | None = None,
  weight_decay: float | None = None,
  clip_norm: float | None = None,
) -> optax.GradientTransformation:
  """Returns Adafactor with T5X's settings, the paper's optimizer.

  Second moments are factored from 128 × 128 on and decay with exponent 0.8,
  updates are clipped to a root mean square of 1 and scaled by that of the
  parameters.

  Args:
    learning_rate: number or schedule.
    momentum: None for none.
    weight_decay: fraction of the parameters taken off at every step.
    clip_norm: largest global norm of the gradients.

  Returns:
    The optimizer.

  Example:
    >>> optimizer = adafactor(0.1)

  Source: Shazeer and Stern 2018; DST, appendix F.
  """
  return _clipped(
    clip_norm,
    optax.adafactor(
      learning_rate,
      decay_rate=0.8,
      clipping_threshold=1.0,
      momentum=momentum,
      weight_decay_rate=weight_decay,
    ),
  )


def adamw(
  learning_rate: optax.ScalarOrSchedule,
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  weight_decay: float = 0.0,
  clip_norm: float | None = None,
) -> optax.GradientTransformation:
  """Returns AdamW.

  Args:
    learning_rate: number or schedule.
    b1: decay of the mean of the gradients.
    b2: decay of the mean of their squares.
    weight_decay: times the learning rate, taken off at every step.
    clip_norm: largest global norm of the gradients.

  Returns:
    The optimizer.

  Example:
    >>> optimizer = adamw(1e-3)

  Source: Loshchilov and Hutter 2019.
  """
  return _clipped(
    clip_norm,
    optax.adamw(learning_rate, b1=b1, b2=b2, weight_decay=weight_decay),
  )


def sgd(
  learning_rate: optax.ScalarOrSchedule,
  *,
  momentum: float | None = None,
  weight_decay: float | None = None,
  clip_norm: float | None = None,
) -> optax.GradientTransformation:
  """Returns stochastic gradient descent.

  Args:
    learning_rate: number or schedule.
    momentum: None for none.
    weight_decay: times the learning rate, taken off at every step.
    clip_norm: largest global norm of the gradients.

  Returns:
    The optimizer.

  Example:
    >>> optimizer = sgd(0.1, momentum=0.9)
  """
  inner = optax.sgd(learning_rate, momentum=momentum)
  if weight_decay is not None:
    inner = optax.chain(optax.add_decayed_weights(weight_decay), inner)
  return _clipped(clip_norm, inner)


NAMED: dict[str, Optimizer] = {
  'adafactor': adafactor,
  'adamw': adamw,
  'sgd': sgd,
}


def by_name(name: str) -> Optimizer:
  """Returns one of the optimizers above.

  Args:
    name: 'adafactor', 'adamw' or 'sgd'.

  Returns:
    A function of the learning rate.

  Raises:
    ValueError: if the name is unknown.

  Example:
    >>> by_name('sgd').__name__
    'sgd'
  """
  return known_names.look_up('optimizer', name, NAMED)


def _clipped(
  clip_norm: float | None, inner: optax.GradientTransformation
) -> optax.GradientTransformation:
  if clip_norm is None:
    return inner
  return optax.chain(optax.clip_by_global_norm(clip_norm), inner)
