"""The restore hook: where a run's seed comes from, and how it goes on.

Bound as `train_state_initializer_cls` in `t5x.train`, `t5x.eval` and
`t5x.infer`, with `CheckpointConfig.restore = None` in training: T5X then looks
for a checkpoint in MODEL_DIR alone, and asks this class for everything else.

  nothing in MODEL_DIR   `from_scratch`: the seed, and the method's first state
  a delta checkpoint     its `restore_state`: the seed, and the delta in it
"""

import dataclasses
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
from dst_t5x.checkpoint import delta_checkpoint, manifest, saved_arrays
from dst_t5x.core.counting import Partitioning
from dst_t5x.hooks import (
  before_run,
  dataset_state,
  delta_state,
  inner,
  seed_memory,
)
from dst_t5x.hooks.inference_keeper import InferenceKeeper
from dst_t5x.hooks.optimizer import Selective
from dst_t5x.hooks.train_keeper import TrainKeeper
from dst_t5x.seeds import sharded

_INNER_STATES = ('full', 'none')


class SeedInitializer(utils.TrainStateInitializer):
  """Begins a run at its seed, and restores deltas on top of it.

  T5X gives the first five arguments, gin the others.

  Args:
    optimizer_def: `optimizer.Selective` in training, None in inference.
    init_fn: the model's.
    input_shapes: of a batch.
    partitioner: with rules for all of the model's axes.
    input_types: of a batch.
    seed_path: of the seed; in inference None stands for the one that the
      checkpoint names.
    model_dir: in training, where the run keeps its checkpoints.
    checkpoint_path: in inference, what is to be restored.
    total_steps: where T5X's step count ends (count); the seed's own included.
    inner_state: 'full' saves the inner optimizer's state, 'none' leaves it
      out, so that a resume is one of weights only.
    restore_dataset: whether a resume also restores where the input stands.

  Raises:
    ManifestError: if MODEL_DIR holds another run's checkpoints.
    SeedError: if the seed cannot be read or does not fit the model.
    SiloError: if the budget or the silos are wrong.
    ValueError: if the partitioner lacks rules.
  """

  def __init__(
    self,
    optimizer_def: Any,
    init_fn: Any,
    input_shapes: Any,
    partitioner: Any,
    input_types: Any = None,
    *,
    seed_path: str | None = None,
    model_dir: str | None = None,
    checkpoint_path: str | None = None,
    total_steps: int | None = None,
    inner_state: str = 'full',
    restore_dataset: bool = True,
  ):
    if inner_state not in _INNER_STATES:
      raise ValueError(
        f'inner_state={inner_state!r} must be one of {_INNER_STATES}'
      )
    before_run.rules(init_fn, input_shapes, input_types, partitioner)
    found, checkpoint = None, None
    if optimizer_def is None:
      checkpoint = before_run.checkpoint_to_infer_from(checkpoint_path)
    else:
      before_run.optimizer(optimizer_def)
      found = sharded.open_source(seed_path, macro='INITIAL_CHECKPOINT_PATH')
      first = found.step or 0
      if total_steps is not None:
        before_run.steps(total_steps, first)
        optimizer_def.set_total_steps(total_steps - first)
    super().__init__(
      optimizer_def=optimizer_def,
      init_fn=init_fn,
      input_shapes=input_shapes,
      partitioner=partitioner,
      input_types=input_types,
    )
    self._init_fn = functools.partial(
      init_fn, input_shapes=input_shapes, input_types=input_types
    )
    self.train_state_axes = seed_memory.kept_in(
      getattr(partitioner, 'seed_memory_kind', None),
      self.train_state_axes,
      partitioner.mesh,
    )
    self._dense_axes = self.train_state_axes
    specs = inner.specs(self.train_state_axes.params)
    self._partitioning = Partitioning(partitioner.mesh, specs)
    self._shardings = {
      path: NamedSharding(partitioner.mesh, spec)
      for path, spec in specs.items()
    }
    if found is not None and optimizer_def is not None:
      self._prepare_training(
        found, optimizer_def, model_dir, inner_state, restore_dataset
      )
    elif checkpoint is not None:
      self._prepare_inference(checkpoint, seed_path)

  def from_scratch(self, init_rng: Any) -> Any:
    """Returns the train state of a run's beginning: the seed, and no delta."""
    if self._source is None:
      raise ValueError(
        'nothing to infer from: CHECKPOINT_PATH must be a checkpoint'
      )
    start = self._source.step or 0
    optimizer_def = self._optimizer_def

    def begin(rng: Any, params: Any) -> Any:
      variables = unfreeze(self._init_fn(rng=rng))
      like = variables['params']
      variables['params'] = saved_arrays.like(like, params)
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

    params = sharded.load(self._source, self._shardings)
    state = self._partitioner.partition(
      begin,
      in_axis_resources=(
        None,
        {path: s.spec for path, s in self._shardings.items()},
      ),
      out_axis_resources=self._dense_axes,
    )(init_rng, params)
    logging.info(
      'Starting from the seed %s at step %d; its fingerprint is %s.',
      self._source.location,
      start,
      self._fingerprint,
    )
    return self._as_delta_state(state)

  def _prepare_training(
    self,
    source: Any,
    optimizer_def: Selective,
    model_dir: str | None,
    inner_state: str,
    restore_dataset: bool,
  ) -> None:
    shapes = self.global_train_state_shape
    sharded.check(source, named_leaves(shapes.params))
    optimizer_def.set_partitioning(self._partitioning)
    self._source, self._optimizer_def = source, optimizer_def
    self._fingerprint = sharded.fingerprint(source)
    plan = optimizer_def.plan(shapes.params)
    saved = delta_checkpoint.latest(model_dir) if model_dir else None
    old = delta_checkpoint.open_checkpoint(saved) if saved else None
    if saved and restore_dataset:
      dataset_state.check(saved, self._partitioner.get_data_layout().num_shards)
    if optimizer_def.method.score is None:
      if old is not None:
        raise manifest.ManifestError(
          f'{saved} holds a delta of method '
          f'{old.manifest["method"]["name"]!r}, and METHOD here is '
          f'{optimizer_def.method.name!r}; start with an empty MODEL_DIR'
        )
      self._keeper = None
      return
    mine = manifest.make(
      plan,
      shapes.params,
      epsilon=optimizer_def.epsilon,
      silo_scheme=optimizer_def.silo_scheme,
      inner_state=inner_state,
      keep_first=optimizer_def.keep_first,
      seed={
        'location': source.location,
        'layout': source.layout,
        'step': source.step,
        'fingerprint': self._fingerprint,
      },
    )
    if saved:
      if old is None:
        raise manifest.ManifestError(
          f'{saved} is no delta checkpoint: a run without a subset method '
          'wrote it; start with an empty MODEL_DIR'
        )
      manifest.check_same(mine, old.manifest, saved)
    self._keeper = TrainKeeper(
      plan,
      mine,
      functools.partial(sharded.load, source, self._shardings),
      self._fresh_inner,
      optimizer_def,
    )
    self.global_train_state_shape = self._as_delta_state(shapes)
    self.train_state_axes = self._as_delta_state(self.train_state_axes)
    before_run.log_plan(plan, mine, self.global_train_state_shape.state_dict())

  def _prepare_inference(
    self, checkpoint: delta_checkpoint.DeltaCheckpoint, seed_path: str | None
  ) -> None:
    told = checkpoint.manifest['seed']
    if seed_path:
      source = sharded.open_source(seed_path, macro='INITIAL_CHECKPOINT_PATH')
    else:
      source = sharded.open_source(
        told['location'], macro=f'the seed that {checkpoint.location} names'
      )
    found = sharded.fingerprint(source)
    if found != told['fingerprint']:
      raise manifest.ManifestError(
        f'{checkpoint.location} was trained from the seed {told["location"]} '
        f'with the fingerprint {told["fingerprint"]}; {source.location} has '
        f'{found}. Give its own seed as INITIAL_CHECKPOINT_PATH'
      )
    shapes = named_leaves(self.global_train_state_shape.params)
    sharded.check(source, shapes)
    self._keeper = InferenceKeeper(
      checkpoint.manifest,
      self._partitioning,
      functools.partial(sharded.load, source, self._shardings),
    )
    self.global_train_state_shape = self._as_delta_state(
      self.global_train_state_shape
    )
    self.train_state_axes = self._as_delta_state(self.train_state_axes)

  def _as_delta_state(self, state: Any) -> Any:
    if self._keeper is None:
      return state
    kind = (
      delta_state.DeltaInferenceState
      if isinstance(state, train_state_lib.InferenceState)
      else delta_state.DeltaTrainState
    )
    fields = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
    return kind(**{**fields, 'keeper': self._keeper})

  def _fresh_inner(self, params: Any) -> Any:
    """Returns the inner optimizer's first state, sharded as in training."""
    dense = self._dense_axes._optimizer.state.param_states['selective'].inner
    return self._partitioner.partition(
      lambda p: self._optimizer_def.inner.init_state(p).param_states,
      in_axis_resources=(self._dense_axes.params,),
      out_axis_resources=dense,
    )(params)

  _keeper: Any = None
  _source: Any = None
  _optimizer_def: Any = None
  _fingerprint: str | None = None
