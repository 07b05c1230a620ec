"""Any optax optimizer as the inner optimizer, at the trainer's learning rate.

T5X's own `OptaxWrapper` logs the trainer's learning rate and ignores it. This
one takes the optimizer as a function of the rate, and calls it with the
trainer's rate in every step.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import gin
import jax.numpy as jnp
import optax
from flax import struct
from t5x import optimizers  # type: ignore

from dst_t5x.arrays.paths import named_leaves
from dst_t5x.hooks import axes, state_dicts

Optimizer = Callable[..., optax.GradientTransformation]


@struct.dataclass
class HyperParams:
  """What the trainer changes at every step."""

  learning_rate: Any = None


class Optax(optimizers.OptimizerDef):
  """An optax optimizer, given as a function of the learning rate.

  u, s' = transformation(η)(∇, s, Θ) with the trainer's η of this step.

  Args:
    transformation: takes `learning_rate`, returns an optax optimizer; in gin
      for example @optax.adamw, with its other arguments bound.

  Example:
    >>> optimizer = Optax(optax.adamw)
    >>> optimizer.hyper_params.learning_rate is None
    True
  """

  def __init__(self, transformation: Optimizer):
    if isinstance(transformation, optax.GradientTransformation):
      raise ValueError(
        f'transformation={transformation!r} is an optimizer, with its learning '
        'rate in it; give the function that makes it from a learning rate, as '
        '@optax.adamw (without parentheses)'
      )
    self.transformation = transformation
    # Only of the rate: what gin binds to other arguments must not become state.
    self._optax = optax.inject_hyperparams(
      lambda learning_rate: transformation(learning_rate=learning_rate)
    )(learning_rate=0.0)
    super().__init__(hyper_params=HyperParams())

  def init_state(self, params: Any) -> Any:
    """Returns the optimizer's first state."""
    return optimizers.OptimizerState(jnp.int32(0), self._optax.init(params))

  def apply_gradient(
    self, hyper_params: HyperParams, params: Any, state: Any, grads: Any
  ) -> tuple[Any, Any]:
    """Returns the proposed parameters and the next state."""
    rate = hyper_params.learning_rate
    if rate is None:
      raise ValueError('no learning rate: bind Trainer.learning_rate_fn')
    inner = state.param_states
    old = inner.hyperparams['learning_rate']
    rate = jnp.asarray(rate, old.dtype).reshape(old.shape)
    inner = inner._replace(hyperparams={'learning_rate': rate})
    updates, inner = self._optax.update(grads, inner, params)
    return optax.apply_updates(params, updates), optimizers.OptimizerState(
      state.step + 1, inner
    )

  def derive_logical_axes(self, optimizer: Any, param_logical_axes: Any) -> Any:
    """Returns the optimizer with logical axes in place of arrays."""
    logical = axes.named(param_logical_axes)
    shapes = {
      path: tuple(x.shape) for path, x in named_leaves(optimizer.target).items()
    }
    return optimizers.Optimizer(
      self,
      optimizers.OptimizerState(
        None, axes.of_state(optimizer.state.param_states, shapes, logical)
      ),
      param_logical_axes,
    )

  def state_dict(self, target: Any, state: Any) -> Any:
    """Returns a nested dict without the empty states of optax."""
    return state_dicts.of_optimizer(target, state)

  def restore_state(
    self, opt_target: Any, opt_state: Any, state_dict: Any
  ) -> Any:
    """Returns target and state from such a dict."""
    return state_dicts.restore_optimizer(opt_target, opt_state, state_dict)


# What a resume may change, and what T5X works out from the model.
_NOT_RECORDED = ('learning_rate', 'step_offset', 'factor_map')


def recorded(optimizer: Any) -> dict[str, Any]:
  """Returns what a checkpoint records of an inner optimizer.

  Args:
    optimizer: any `OptimizerDef` of T5X.

  Returns:
    Its 'name', and under 'settings' those of its hyper-parameters that are
    numbers, strings, bools or None; not the learning rate. For `Optax`, the
    settings are what gin binds to the transformation.

  Example:
    >>> recorded(Optax(optax.adamw))
    {'name': 'Optax(adamw)', 'settings': {}}
  """
  if isinstance(optimizer, Optax):
    transformation = optimizer.transformation
    name = getattr(transformation, '__name__', type(transformation).__name__)
    return {'name': f'Optax({name})', 'settings': _bound(transformation)}
  settings: dict[str, Any] = {}
  several = optimizer.hyper_params
  if not isinstance(several, list | tuple):
    several = [several]
  for number, hyper_params in enumerate(several):
    if not dataclasses.is_dataclass(hyper_params):
      continue
    prefix = f'{number}.' if len(several) > 1 else ''
    for field in dataclasses.fields(hyper_params):
      settings[prefix + field.name] = getattr(hyper_params, field.name)
  return {'name': type(optimizer).__name__, 'settings': _plain(settings)}


def _bound(function: Any) -> dict[str, Any]:
  """Returns what gin binds to a function, if gin knows it."""
  try:
    return _plain(gin.get_bindings(function, resolve_references=False))
  except ValueError:
    return {}


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
  """Returns the settings that JSON can hold; NaN and infinities as text."""
  plain: dict[str, Any] = {}
  for name, value in sorted(settings.items()):
    if name.rpartition('.')[2] in _NOT_RECORDED:
      continue
    if isinstance(value, float) and not math.isfinite(value):
      plain[name] = str(value)
    elif value is None or isinstance(value, bool | int | float | str):
      plain[name] = value
  return plain
