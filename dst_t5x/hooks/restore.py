"""The restore hook: where a run's seed comes from, and how it goes on.

`TrainInitializer` is bound as `train_state_initializer_cls` in `t5x.train`,
with `CheckpointConfig.restore = None`: T5X then looks for a checkpoint in
MODEL_DIR alone, and asks the initializer for everything else.

  nothing in MODEL_DIR   `from_scratch`: the seed, and the method's first state
  a delta checkpoint     its `restore_state`: the seed, and the delta in it

`InferenceInitializer` is bound in `t5x.eval` and `t5x.infer`, where T5X always
restores a checkpoint: a delta on top of its seed, or a whole model.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from flax.core import freeze, unfreeze
from jax.sharding import NamedSharding
from t5x import train_state as train_state_lib  # type: ignore
from t5x import utils  # type: ignore

from dst_t5x.arrays.paths import named_leaves
from dst_t5x.checkpoint import manifest as manifest_lib
from dst_t5x.checkpoint import resume_checks
from dst_t5x.core.counting import Partitioning
from dst_t5x.core.methods import Method
from dst_t5x.hooks import (
  axes,
  before_run,
  delta_state,
  inner,
  model_info,
  partitioning,
  state_dicts,
)
from dst_t5x.hooks import base_rate as base_rate_lib
from dst_t5x.hooks.base_rate import BaseRate
from dst_t5x.hooks.inference_keeper import InferenceKeeper
from dst_t5x.hooks.train_keeper import TrainKeeper
from dst_t5x.seeds import sharded

_INNER_STATES = ('full', 'none')


class TrainInitializer(utils.TrainStateInitializer):
  """Begins a run at its seed, and resumes it from deltas on top of the seed.

  T5X gives the first five arguments, gin the others.

  Args:
    optimizer_def: `optimizer.Selective`.
    init_fn: the model's.
    input_shapes: of a batch.
    partitioner: with rules for all of the model's axes.
    input_types: of a batch.
    seed_path: of the seed.
    model_dir: where the run keeps its checkpoints.
    total_steps: where T5X's step count ends (count); the seed's own included.
    inner_state: 'full' saves the inner optimizer's state, 'none' leaves it
      out, so that a resume is one of weights only.
    restore_dataset: whether a resume also restores where the input stands.
    base_rate: of the trainer's schedule, to be logged and recorded; None if
      nobody knows it.
    best_metric: by which T5X keeps the best checkpoints; None if it does not.

  Raises:
    ManifestError: if `model_dir` holds another run's checkpoints.
    SeedError: if the seed cannot be read or does not fit the model.
    SiloError: if the budget or the silos are wrong.
    ValueError: if the partitioner lacks rules, or an argument is wrong.
  """

  def __init__(
    self,
    optimizer_def: Any,
    init_fn: Any,
    input_shapes: Any,
    partitioner: Any,
    input_types: Any = None,
    *,
    seed_path: str,
    model_dir: str,
    total_steps: int,
    inner_state: str = 'full',
    restore_dataset: bool = True,
    base_rate: BaseRate | None = None,
    best_metric: str | None = None,
  ):
    if inner_state not in _INNER_STATES:
      raise ValueError(
        f'INNER_STATE={inner_state!r} must be one of {_INNER_STATES}'
      )
    if not model_dir:
      raise ValueError(
        f'model_dir={model_dir!r} must be where T5X keeps the checkpoints of '
        'this run: bind restore.TrainInitializer.model_dir = %MODEL_DIR'
      )
    self._keeper: TrainKeeper | None = None
    before_run.check_rules(init_fn, input_shapes, input_types, partitioner)
    before_run.check_optimizer(optimizer_def)
    self._source = sharded.open_source(
      seed_path, macro='INITIAL_CHECKPOINT_PATH'
    )
    self._check_restore(optimizer_def.method)
    self._start = self._source.step or 0
    before_run.check_steps(total_steps, self._start)
    optimizer_def.set_total_steps(total_steps - self._start)
    optimizer_def.set_model_dir(model_dir, best_metric)
    newest = before_run.newest_checkpoint(
      model_dir,
      shards=partitioner.get_data_layout().num_shards
      if restore_dataset
      else None,
    )
    if newest is not None and newest.delta is not None:
      optimizer_def.follow(bool(newest.delta.manifest.get('keep_first')))
    super().__init__(
      optimizer_def=optimizer_def,
      init_fn=init_fn,
      input_shapes=input_shapes,
      partitioner=partitioner,
      input_types=input_types,
    )
    self._optimizer_def = optimizer_def
    self._base_rate = base_rate
    self._init_fn = functools.partial(
      init_fn, input_shapes=input_shapes, input_types=input_types
    )
    self.train_state_axes = partitioning.with_seed_in(
      getattr(partitioner, 'seed_memory_kind', None),
      self.train_state_axes,
      partitioner.mesh,
    )
    self._dense_axes = self.train_state_axes
    self._parameters = _partitioning(self)
    self._load_seed = _loader(self._source, self._parameters)
    shapes = self.global_train_state_shape
    sharded.check(self._source, named_leaves(shapes.params))
    self._fingerprint = sharded.fingerprint(self._source)
    optimizer_def.set_partitioning(self._parameters)
    self._keeper = self._make_keeper(shapes.params, newest, inner_state)
    if self._keeper is not None:
      _use_keeper(self, delta_state.DeltaTrainState, self._keeper)
      arrays = self._keeper.arrays(self.global_train_state_shape)
      if newest is not None and newest.delta is not None:
        resume_checks.check_inner_state(
          arrays, newest.delta.shapes, newest.location
        )
      before_run.log_plan(self._keeper.plan, arrays)

  @property
  def global_train_state_shape(self) -> Any:
    """A train state of shapes: what T5X saves, and later what it describes.

    T5X gives it to its checkpoint manager first, and logs what it holds once
    the run has its parameters. See `model_info`.
    """
    if self._keeper is None or not self._keeper.begun:
      return self._shapes
    return delta_state.with_keeper(
      model_info.DescribedTrainState, self._shapes, self._keeper
    )

  @global_train_state_shape.setter
  def global_train_state_shape(self, shapes: Any) -> None:
    self._shapes = shapes

  def from_scratch(self, init_rng: Any) -> Any:
    """Returns the train state of a run's beginning: the seed, and no delta."""
    optimizer_def, start = self._optimizer_def, self._start

    def begin(rng: Any, params: Any) -> Any:
      variables = unfreeze(self._init_fn(rng=rng))
      variables['params'] = state_dicts.with_leaves(variables['params'], params)
      state = train_state_lib.FlaxOptimTrainState.create(
        optimizer_def, freeze(variables)
      )
      optimizer = state._optimizer
      return state.replace(
        _optimizer=optimizer.replace(
          # A copy: T5X donates it at the first step, and the seed must stay.
          target=jax.tree.map(jnp.copy, optimizer.target),
          state=optimizer.state.replace(step=jnp.int32(start)),
        )
      )

    seed = self._load_seed()
    state = self._partitioner.partition(
      begin,
      in_axis_resources=(None, dict(self._parameters.specs)),
      out_axis_resources=self._dense_axes,
    )(init_rng, seed)
    logging.info(
      'Starting from the seed %s at step %d; its fingerprint is %s.',
      self._source.location,
      start,
      self._fingerprint,
    )
    if self._keeper is None:
      return state
    self._keeper.begun = True
    return delta_state.with_keeper(
      delta_state.DeltaTrainState, state, self._keeper
    )

  def _check_restore(self, method: Method) -> None:
    """Raises if T5X would restore the seed as a checkpoint of the run."""
    before_run.check_restore(self._source.location, method)

  def _make_keeper(
    self,
    shapes: Any,
    newest: before_run.Newest | None,
    inner_state: str,
  ) -> TrainKeeper | None:
    """Returns what saves this run as deltas; None for a run of whole models.

    Args:
      shapes: of the parameters.
      newest: the checkpoint in MODEL_DIR, which must be one of this run.
      inner_state: 'full' or 'none'.
    """
    optimizer_def = self._optimizer_def
    plan = optimizer_def.plan(shapes)
    rate = self._base_rate
    if rate is not None:
      base_rate_lib.log(rate, plan)
    manifest = None
    if optimizer_def.method.score is not None:
      manifest = manifest_lib.make(
        plan,
        shapes,
        epsilon=optimizer_def.epsilon,
        silo_scheme=optimizer_def.silo_scheme,
        inner_state=inner_state,
        keep_first=optimizer_def.keep_first,
        seed={
          'location': self._source.location,
          'layout': self._source.layout,
          'step': self._source.step,
          'fingerprint': self._fingerprint,
        },
        learning_rate=None if rate is None else float(rate.rate),
        rate_by_default=rate is not None and rate.by_default,
        optimizer=inner.recorded(optimizer_def.inner),
      )
    before_run.check_newest(newest, manifest, method=optimizer_def.method.name)
    if manifest is None:
      return None
    return TrainKeeper(
      plan, manifest, self._load_seed, self._fresh_inner, optimizer_def
    )

  def _fresh_inner(self, params: Any) -> Any:
    """Returns the inner optimizer's first state, sharded as in training."""
    dense = self._dense_axes._optimizer.state.param_states['selective'].inner
    return self._partitioner.partition(
      lambda p: self._optimizer_def.inner.init_state(p).param_states,
      in_axis_resources=(self._dense_axes.params,),
      out_axis_resources=dense,
    )(params)


class InferenceInitializer(utils.TrainStateInitializer):
  """Restores deltas on top of their seed, or whole models as T5X does.

  T5X gives the first five arguments, gin the others.

  Args:
    optimizer_def: None.
    init_fn: the model's.
    input_shapes: of a batch.
    partitioner: with rules for all of the model's axes.
    input_types: of a batch.
    checkpoint_path: what is to be restored.
    seed_path: of the seed; None for the one that the checkpoint names.

  Raises:
    ManifestError: if the checkpoint is of another seed, or contradicts itself.
    SeedError: if the seed cannot be read or does not fit the model.
    ValueError: if the partitioner lacks rules, or there is no checkpoint.
  """

  def __init__(
    self,
    optimizer_def: Any,
    init_fn: Any,
    input_shapes: Any,
    partitioner: Any,
    input_types: Any = None,
    *,
    checkpoint_path: str,
    seed_path: str | None = None,
  ):
    before_run.check_rules(init_fn, input_shapes, input_types, partitioner)
    checkpoint = before_run.checkpoint_to_infer_from(checkpoint_path)
    super().__init__(
      optimizer_def=optimizer_def,
      init_fn=init_fn,
      input_shapes=input_shapes,
      partitioner=partitioner,
      input_types=input_types,
    )
    if checkpoint is None:
      return
    source = before_run.seed_of(checkpoint, seed_path)
    sharded.check(source, named_leaves(self.global_train_state_shape.params))
    parameters = _partitioning(self)
    keeper = InferenceKeeper(
      checkpoint.manifest, parameters, _loader(source, parameters)
    )
    _use_keeper(self, delta_state.DeltaInferenceState, keeper)

  def from_scratch(self, init_rng: Any) -> Any:
    """Raises: what is not restored would infer from random parameters."""
    del init_rng
    raise ValueError(
      'nothing to infer from: CHECKPOINT_PATH must be a checkpoint'
    )


def _partitioning(initializer: utils.TrainStateInitializer) -> Partitioning:
  """Returns how a model's parameters lie on the mesh."""
  return Partitioning(
    initializer._partitioner.mesh,
    axes.specs(initializer.train_state_axes.params),
  )


def _loader(source: Any, parameters: Partitioning) -> sharded.LoadSeed:
  """Returns what reads a seed onto the devices, as the parameters lie."""
  shardings = {
    path: NamedSharding(parameters.mesh, spec)
    for path, spec in parameters.specs.items()
  }
  return functools.partial(sharded.load, source, shardings)


def _use_keeper(
  initializer: utils.TrainStateInitializer, kind: Any, keeper: Any
) -> None:
  """Makes an initializer's states ones that are saved as deltas."""
  initializer.global_train_state_shape = delta_state.with_keeper(
    kind, initializer.global_train_state_shape, keeper
  )
  initializer.train_state_axes = delta_state.with_keeper(
    kind, initializer.train_state_axes, keeper
  )
