"""The optimizer hook: the selective step around any optimizer of T5X.

  OPTIMIZER proposes Θ̂, the method decides which parameters keep it

T5X hands gradients, parameters and state to `apply_gradient` and takes new
parameters back, which is all that a method needs. The state is
`selective.SelectiveState`, which holds the inner optimizer's state.

The method works on dicts of parameters by path. T5X's trees become dicts, and
the other way round, in this module alone; the inner optimizer sees trees.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from t5x import optimizers  # type: ignore

from dst_t5x.arrays.paths import named_leaves
from dst_t5x.core import plans, selective
from dst_t5x.core.counting import Partitioning
from dst_t5x.core.methods import Method, SiloScheme
from dst_t5x.core.silos import SiloError
from dst_t5x.hooks import axes, restored_dtypes, save_checks, state_dicts


class Selective(optimizers.OptimizerDef):
  """Lets an inner optimizer propose and a method dispose.

  Θ = Θ̂ inside the subset, Θ⁰ outside.

  The inner optimizer counts our own steps, from 0, not those of the seed's
  pretraining: its state starts empty, and Adafactor's decay would otherwise
  never let it fill.

  Args:
    inner: any `OptimizerDef` of T5X, or `inner.Optax`.
    method: see `dst_t5x.core.methods`.
    epsilon: fraction of all parameters in (0, 1].
    budget: number of parameters (count), instead of `epsilon`.
    silos: scheme or rules instead of the method's own.
    stacks: logical axes along which scanned layers are stacked.
    keep_first: keep the subset of the first step, so that later ones can be
      compared with it; one bool a parameter. None for no, unless the run began
      so: see `follow`.
    random_seed: of the subsets that some methods draw; None for 0. Our own
      runner draws the same ones from it.

  Raises:
    SiloError: if no model could have such a budget.
    ValueError: if the inner optimizer cannot be used.

  Source: DST, algorithm 1.
  """

  def __init__(
    self,
    inner: Any,
    method: Method,
    *,
    epsilon: float | None = None,
    budget: int | None = None,
    silos: SiloScheme | None = None,
    stacks: Sequence[str] = axes.STACKS,
    keep_first: bool | None = None,
    random_seed: int | None = None,
  ):
    if not isinstance(inner, optimizers.OptimizerDef):
      raise ValueError(
        f'inner={inner!r} is no OptimizerDef of T5X; wrap an optax optimizer '
        'in dst_t5x.hooks.inner.Optax'
      )
    if not isinstance(method, Method):
      raise ValueError(
        f'method={method!r} is no method; give a file of methods/, such as '
        '--gin_file=methods/dst.gin'
      )
    try:
      plans.check_budget(method, epsilon=epsilon, budget=budget)
    except SiloError as error:
      raise SiloError(
        f'EPSILON={epsilon!r}, BUDGET={budget!r}: {error}'
      ) from None
    offset = getattr(inner.hyper_params, 'step_offset', 0)
    if offset:
      raise ValueError(
        f'{type(inner).__name__}.step_offset={offset} must be 0: the inner '
        "optimizer counts the run's own steps, not those of the pretraining"
      )
    self.inner = inner
    self.method = method
    self.epsilon, self.budget, self.silo_scheme = epsilon, budget, silos
    self.random_seed = 0 if random_seed is None else random_seed
    self._follows = keep_first is None
    self.keep_first = bool(keep_first) and method.score is not None
    self._stack_names = tuple(stacks)
    self._stack_axes: dict[str, int] = {}
    self._total_steps: int | None = None
    self._partitioning: Partitioning | None = None
    self._model_dir = ''
    self._best_metric: str | None = None
    self.seed_memory_kind: str | None = None
    super().__init__(inner.hyper_params)

  def set_total_steps(self, steps: int) -> None:
    """Sets the steps of the run (count), for schedules that last all of it."""
    self._total_steps = steps

  def set_partitioning(self, partitioning: Partitioning) -> None:
    """Sets how the parameters lie on the mesh; no step is taken without it."""
    self._partitioning = partitioning

  def set_model_dir(
    self, model_dir: str, best_metric: str | None = None
  ) -> None:
    """Sets where the run keeps which checkpoints, for messages about them."""
    self._model_dir = model_dir
    self._best_metric = best_metric

  def follow(self, keeps_first: bool) -> None:
    """Takes over what a run that goes on did, where nobody said otherwise.

    Args:
      keeps_first: whether the run keeps the subset of its first step.
    """
    if self._follows:
      self.keep_first = keeps_first and self.method.score is not None

  def plan(self, params: Any) -> plans.Plan:
    """Returns the plan for a model's parameters.

    Args:
      params: arrays or shapes.

    Returns:
      The plan.

    Raises:
      SiloError: if the budget or the silos are wrong.
    """
    return plans.make(
      self.method,
      params,
      epsilon=self.epsilon,
      budget=self.budget,
      silo_scheme=self.silo_scheme,
      stack_axes=self._stack_axes,
      total_steps=self._total_steps,
      partitioning=self._partitioning,
    )

  def set_param_axes(self, param_logical_axes: Any) -> None:
    """Takes the model's logical axes; T5X calls this first."""
    self._stack_axes = axes.stacks(
      axes.named(param_logical_axes), self._stack_names
    )
    if hasattr(self.inner, 'set_param_axes'):
      self.inner.set_param_axes(param_logical_axes)
    # Adafactor keeps its factor rules there.
    self.hyper_params = self.inner.hyper_params

  def update_hyper_params(self, **overrides: Any) -> Any:
    """Returns the inner optimizer's hyper-parameters for one step."""
    return self.inner.update_hyper_params(**overrides)

  def init_state(self, params: Any) -> Any:
    """Returns the state before the first step; `params` are the seed."""
    seed = named_leaves(params)
    state = selective.init(
      self.plan(params),
      seed,
      self.inner.init_state(params).param_states,
      key=jax.random.key(self.random_seed),
    )
    first: Any = ()
    if self.keep_first:
      first = {path: jnp.zeros_like(x, jnp.bool_) for path, x in seed.items()}
    return optimizers.OptimizerState(
      jnp.int32(0), {'selective': state, 'first': first}
    )

  def apply_gradient(
    self, hyper_params: Any, params: Any, state: Any, grads: Any
  ) -> tuple[Any, Any]:
    """Returns the new parameters and state; see `selective.step`."""
    if self._partitioning is None:
      raise ValueError(
        'the optimizer does not know the seed: bind train_state_initializer_cls'
        ' = @restore.TrainInitializer, as runs/finetune_t5x.gin and '
        'hosts/on_top_t5x.gin do. T5X '
        'would call the random initialisation the seed'
      )
    old = state.param_states['selective']
    count, seed = old.count, self.seed_on_device(old.seed)
    as_tree = functools.partial(state_dicts.with_leaves, params)

    def propose(gradients: Any, inner_state: Any, params: Any) -> Any:
      before = optimizers.OptimizerState(count, inner_state)
      proposed, after = self.inner.apply_gradient(
        hyper_params, as_tree(params), before, as_tree(gradients)
      )
      return named_leaves(proposed), after.param_states

    new_params, new = selective.step(
      self.plan(params),
      propose,
      named_leaves(grads),
      old._replace(seed=seed),
      named_leaves(params),
      count_churn=False,  # `subset_metrics` counts it with the overlap
    )
    first = state.param_states['first']
    if self.keep_first:
      first = {
        path: jnp.where(count == 0, new_params[path] != seed[path], mask)
        for path, mask in first.items()
      }
    return as_tree(new_params), optimizers.OptimizerState(
      state.step + 1,
      {'selective': new._replace(seed=old.seed), 'first': first},
    )

  def derive_logical_axes(self, optimizer: Any, param_logical_axes: Any) -> Any:
    """Returns the optimizer with logical axes in place of arrays."""
    logical = axes.named(param_logical_axes)
    target = optimizer.target
    shapes = {path: tuple(x.shape) for path, x in named_leaves(target).items()}
    states = optimizer.state.param_states
    kept = states['selective']
    inner_optimizer = optimizers.Optimizer(
      self.inner, optimizers.OptimizerState(None, kept.inner), target
    )
    # Axes of optax states that T5X has no rule for are found by shape.
    if isinstance(self.inner, optimizers.OptaxWrapper):
      inner_axes = axes.of_state(kept.inner, shapes, logical)
    else:
      inner_axes = self.inner.derive_logical_axes(
        inner_optimizer, param_logical_axes
      ).state.param_states
    rest = axes.of_state(
      {'selective': kept._replace(inner=()), 'first': states['first']},
      shapes,
      logical,
    )
    rest['selective'] = rest['selective']._replace(inner=inner_axes)
    return optimizers.Optimizer(
      self, optimizers.OptimizerState(None, rest), param_logical_axes
    )

  def raise_if_invalid(self, target: Any, state: Any) -> None:
    """Raises if parameters and state must not be saved.

    Args:
      target: Θ; where it has no values, as of shapes, nothing is checked.
      state: T5X's `OptimizerState` after the same step.

    Raises:
      NonFiniteParameterError, NonFiniteScoreError: see `save_checks.check`.
    """
    if save_checks.has_values(target):
      save_checks.check(
        self.plan(target),
        named_leaves(target),
        state.param_states['selective'],
        step=int(np.asarray(state.step)),
        model_dir=self._model_dir,
        best_metric=self._best_metric,
      )

  def state_dict(self, target: Any, state: Any) -> Any:
    """Returns target and state as nested dicts, once they are checked.

    A run of whole models saves this; one of deltas saves what its keeper says.
    """
    self.raise_if_invalid(target, state)
    return state_dicts.of_optimizer(target, state)

  def restore_state(
    self, opt_target: Any, opt_state: Any, state_dict: Any
  ) -> Any:
    """Returns target and state from nested dicts, in the target's dtypes."""
    target, state = state_dicts.restore_optimizer(
      opt_target, opt_state, state_dict
    )
    restored = restored_dtypes.as_in_run_by_path(
      named_leaves(target), named_leaves(opt_target)
    )
    return state_dicts.with_leaves(target, restored), state

  def seed_on_device(self, seed: Any) -> Any:
    """Brings a seed that is kept in the host's memory over, inside `jit`.

    Args:
      seed: Θ⁰, wherever it is kept.

    Returns:
      The same in the devices' memory.
    """
    if self.seed_memory_kind is None:
      return seed
    return jax.device_put(seed, jax.memory.Space.Device)
