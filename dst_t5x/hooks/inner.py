"""Any optax optimizer as the inner optimizer, at the trainer's learning rate.

T5X's own `OptaxWrapper` logs the trainer's learning rate and ignores it. This
one takes the optimizer as a function of the rate, and calls it with the
trainer's rate in every step.
"""

from collections.abc import Callable
from typing import Any

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
