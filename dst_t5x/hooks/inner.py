"""Any optax optimizer as the inner optimizer, at the trainer's learning rate.

T5X's own `OptaxWrapper` logs the trainer's learning rate and ignores it. Here
the optimizer is a function of the rate, and every step gets the trainer's.
"""

from collections.abc import Callable
from typing import Any

import jax
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
    # Of one argument: what gin binds to the others must not become state.
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
    named = named_axes(param_logical_axes)
    shapes = {
      p: tuple(x.shape) for p, x in named_leaves(optimizer.target).items()
    }
    return optimizers.Optimizer(
      self,
      optimizers.OptimizerState(
        None, axes.of_state(optimizer.state.param_states, shapes, named)
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


def is_axes(leaf: Any) -> bool:
  """Returns whether a leaf of a tree of logical axes is one parameter's."""
  return leaf is None or isinstance(leaf, (tuple, jax.sharding.PartitionSpec))


def named_axes(tree: Any) -> dict[str, Any]:
  """Returns the logical axes of parameters by path.

  Args:
    tree: as T5X hands them around, a (frozen) dict of axes.

  Returns:
    Dict from path to axes.

  Example:
    >>> named_axes({'a': {'w': jax.sharding.PartitionSpec('embed')}})
    {'a/w': P('embed',)}
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_axes)
  return {
    jax.tree_util.keystr(key, simple=True, separator='/'): leaf
    for key, leaf in leaves
  }


def specs(mesh_axes: Any) -> dict[str, jax.sharding.PartitionSpec]:
  """Returns how parameters are partitioned, by path.

  Args:
    mesh_axes: T5X's, of the parameters; None is a whole parameter.

  Returns:
    Dict from path to partition.

  Example:
    >>> specs({'a': {'w': None}})
    {'a/w': P()}
  """
  return {
    path: jax.sharding.PartitionSpec() if spec is None else spec
    for path, spec in named_axes(mesh_axes).items()
  }
