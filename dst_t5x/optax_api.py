"""The selective step for any optax loop."""

from typing import Any, NoReturn

import jax
import optax

from dst_t5x import plans, selective
from dst_t5x.counting import Layout
from dst_t5x.methods import Method, SiloScheme


@jax.tree_util.register_pytree_node_class
class NewValue:
  """A parameter's new value, in the place of an additive update.

  Adding an update does not bring a parameter back to its seed exactly. So what
  `selective_tuning` hands out is the new value itself, and `params + update`,
  which is all that `optax.apply_updates` does, returns it bit for bit. Any
  other arithmetic on it raises.
  """

  # NumPy arrays, too, leave the sum to us.
  __array_ufunc__ = None

  def __init__(self, value: Any):
    self.value = value

  def __radd__(self, params: Any) -> Any:
    """Returns the new value, whatever it is added to."""
    if jax.numpy.shape(params) != jax.numpy.shape(self.value):
      raise ValueError(
        f'update of shape {jax.numpy.shape(self.value)} for a parameter of '
        f'shape {jax.numpy.shape(params)}'
      )
    return self.value

  def _refuse(self, *_: Any) -> NoReturn:
    raise TypeError(
      'the updates of selective tuning are new parameter values; only '
      'optax.apply_updates(params, updates) may use them. Put clipping, decay '
      'and scaling into the inner optimizer, not around this one'
    )

  __add__ = __mul__ = __rmul__ = __neg__ = __sub__ = __rsub__ = _refuse
  __truediv__ = __rtruediv__ = __pow__ = __abs__ = _refuse

  def tree_flatten(self) -> tuple[tuple[Any], None]:
    """Returns the value as the only child."""
    return (self.value,), None

  @classmethod
  def tree_unflatten(cls, _: None, children: tuple[Any]) -> 'NewValue':
    """Returns the object around its only child."""
    return cls(children[0])

  def __repr__(self) -> str:
    """Returns the value's own form, marked."""
    return f'NewValue({self.value!r})'


def selective_tuning(
  inner: optax.GradientTransformation,
  method: Method,
  *,
  epsilon: float | None = None,
  budget: int | None = None,
  silo_scheme: SiloScheme | None = None,
  total_steps: int | None = None,
  layout: Layout | None = None,
  key: jax.Array | None = None,
) -> optax.GradientTransformationExtraArgs:
  """Wraps an optimizer so that only a subset of the parameters ever changes.

  Θ = Θ̂ inside the subset, Θ⁰ outside, with Θ̂ = Θ + inner(∇, Θ) and Θ⁰ the
  parameters that `init` was called with. Exactness: after
  `optax.apply_updates`, at most k parameters of every silo differ from the
  seed and all others are the seed's bit for bit. The updates hold new values,
  so this must be the outermost transformation.

  Args:
    inner: any optax optimizer; decay, clipping and momentum belong here.
    method: see `methods`.
    epsilon: fraction of all parameters in (0, 1].
    budget: number of parameters (count), instead of `epsilon`.
    silo_scheme: instead of the method's own silos.
    total_steps: length of the run, for methods that grow over all of it.
    layout: placement on a mesh.
    key: PRNG key for methods that draw at random.

  Returns:
    An optax transformation whose state is a `selective.SelectiveState`.

  Raises:
    SiloError: from `init`, if the budget or the silos are wrong.
    ValueError: from `update`, if it is called without the parameters.

  Example:
    >>> import jax.numpy as jnp
    >>> from dst_t5x import methods
    >>> params = {'w': jnp.array([3.0, -2.0, 1.0, 0.5])}
    >>> tx = selective_tuning(optax.sgd(0.1), methods.dst(), epsilon=0.25)
    >>> state = tx.init(params)
    >>> updates, state = tx.update({'w': jnp.ones(4)}, state, params)
    >>> optax.apply_updates(params, updates)['w']
    Array([ 2.9, -2. ,  1. ,  0.5], dtype=float32)

  Source: DST, algorithm 1.
  """
  inner = optax.with_extra_args_support(inner)

  def plan_of(params: Any) -> plans.Plan:
    return plans.make(
      method,
      params,
      epsilon=epsilon,
      budget=budget,
      silo_scheme=silo_scheme,
      total_steps=total_steps,
      layout=layout,
    )

  def init(params: Any) -> selective.SelectiveState:
    return selective.init(plan_of(params), params, inner.init(params), key=key)

  def update(
    updates: Any,
    state: selective.SelectiveState,
    params: Any = None,
    **extra: Any,
  ) -> tuple[Any, selective.SelectiveState]:
    if params is None:
      raise ValueError('selective tuning needs update(grads, state, params)')

    def propose(gradients: Any, inner_state: Any, params: Any) -> Any:
      u, inner_state = inner.update(gradients, inner_state, params, **extra)
      return optax.apply_updates(params, u), inner_state

    new, state = selective.step(
      plan_of(params), propose, updates, state, params
    )
    return jax.tree.map(NewValue, new), state

  return optax.GradientTransformationExtraArgs(init, update)
