"""What is checked before a run begins, and logged about it."""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import gin
import jax
from absl import logging
from etils import epath
from flax.core import freeze
from flax.linen import partitioning as flax_partitioning

from dst_t5x.arrays.source import Source
from dst_t5x.checkpoint import delta_checkpoint, resume_checks
from dst_t5x.checkpoint import manifest as manifest_lib
from dst_t5x.core import plans
from dst_t5x.core.methods import Method
from dst_t5x.hooks import axes, datasets
from dst_t5x.hooks.optimizer import Selective
from dst_t5x.seeds import sharded


def check_rules(
  init_fn: Any, input_shapes: Any, input_types: Any, partitioner: Any
) -> None:
  """Raises unless the partitioner has a rule for every axis of the model."""
  variables = jax.eval_shape(
    lambda rng: freeze(
      init_fn(rng=rng, input_shapes=input_shapes, input_types=input_types)
    ),
    jax.random.PRNGKey(0),
  )
  if 'params_axes' not in variables:
    raise ValueError(
      'the model emits no logical axes (params_axes), so that nothing says '
      'where its parameters lie; use a network written for T5X'
    )
  logical = flax_partitioning.get_axis_names(variables['params_axes'])
  axes.check_rules(
    axes.named(logical),
    getattr(partitioner, 'logical_axis_rules', None),
    partitioner=type(partitioner).__name__,
  )


def check_optimizer(optimizer_def: Any) -> None:
  """Raises unless the optimizer is `optimizer.Selective`."""
  if not isinstance(optimizer_def, Selective):
    raise ValueError(
      f'the optimizer is {type(optimizer_def).__name__}; TrainInitializer '
      'needs dst_t5x.hooks.optimizer.Selective around it, as '
      'runs/finetune_t5x.gin and hosts/on_top_t5x.gin bind it'
    )


def check_steps(total_steps: int, first: int) -> None:
  """Raises if a run would end before it begins."""
  if total_steps < first:
    raise ValueError(
      f"TRAIN_STEPS={total_steps} counts the seed's own steps, and the seed is "
      f'at step {first}: give more than {first}, or leave TRAIN_STEPS alone '
      'and set FINETUNE_STEPS'
    )


def check_restore(seed: str, method: Method) -> None:
  """Raises if gin binds what T5X is to restore in a new MODEL_DIR to a seed.

  T5X would restore it as a checkpoint of the run, which holds other arrays.

  Args:
    seed: where the seed lies.
    method: of the run; one without a subset restores whole checkpoints.

  Raises:
    ValueError: naming the binding and the line that mends it.
  """
  try:
    bound = gin.query_parameter('t5x.utils.CheckpointConfig.restore')
  except ValueError:  # Nobody binds it, and T5X's default is None.
    return
  # A copy of what gin binds is its value: gin replaces references by what they
  # return.
  path = getattr(copy.deepcopy(bound), 'path', None)
  if not isinstance(path, str) or not path:
    return
  newest = delta_checkpoint.latest(path) or path
  if sharded.absolute(newest) != seed and (
    method.score is None or delta_checkpoint.open_checkpoint(newest) is not None
  ):
    return
  raise ValueError(
    f'T5X is told to restore {path}, which is no checkpoint of a run like '
    'this: bind utils.CheckpointConfig.restore = None after your other files. '
    'TrainInitializer reads the seed from INITIAL_CHECKPOINT_PATH, and T5X '
    'still resumes from MODEL_DIR'
  )


def checkpoint_to_infer_from(
  checkpoint_path: Any,
) -> delta_checkpoint.DeltaCheckpoint | None:
  """Returns the delta checkpoint to infer from; None for a whole model's."""
  if not isinstance(checkpoint_path, str):
    return None
  if not epath.Path(checkpoint_path).is_dir():
    raise ValueError(
      f'CHECKPOINT_PATH={checkpoint_path!r}: there is no such checkpoint; '
      'give MODEL_DIR/checkpoint_N'
    )
  newest = delta_checkpoint.latest(checkpoint_path)
  return delta_checkpoint.open_checkpoint(newest) if newest else None


class Newest(NamedTuple):
  """The newest checkpoint in MODEL_DIR.

  Attributes:
    location: of the checkpoint.
    delta: the opened checkpoint; None if it holds a whole model.
  """

  location: str
  delta: delta_checkpoint.DeltaCheckpoint | None


def newest_checkpoint(model_dir: str, *, shards: int | None) -> Newest | None:
  """Returns the checkpoint in MODEL_DIR that a run goes on from.

  Args:
    model_dir: where the run keeps its checkpoints.
    shards: of the data (count); None if a resume does not restore where the
      input stands.

  Returns:
    The checkpoint; None if there is none.

  Raises:
    ValueError: if it was written with other data shards, or does not say where
      the input stands.
  """
  location = delta_checkpoint.latest(model_dir)
  if location is None:
    return None
  if shards is not None:
    datasets.check_shards(location, shards)
  return Newest(location, delta_checkpoint.open_checkpoint(location))


def check_newest(
  newest: Newest | None, manifest: Mapping[str, Any] | None, *, method: str
) -> None:
  """Raises if the checkpoint in MODEL_DIR is not one of this run.

  Args:
    newest: the checkpoint; None if MODEL_DIR holds none.
    manifest: of the run; None if its method has no subset.
    method: its name, for the error.

  Raises:
    ManifestError: if another run wrote it.
  """
  if newest is None:
    return
  location, saved = newest
  if manifest is None and saved is not None:
    raise manifest_lib.ManifestError(
      f'{location} holds a delta of METHOD '
      f'{saved.manifest["method"]["name"]!r}, and METHOD here is {method!r}; '
      'start with an empty MODEL_DIR'
    )
  if manifest is not None and saved is None:
    raise manifest_lib.ManifestError(
      f'{location} is no delta checkpoint: a run without a subset method '
      'wrote it; start with an empty MODEL_DIR'
    )
  if manifest is not None and saved is not None:
    resume_checks.check_same(manifest, saved.manifest, location)


def seed_of(
  checkpoint: delta_checkpoint.DeltaCheckpoint, seed_path: str | None
) -> Source:
  """Opens the seed of a checkpoint, and raises if it is another one's.

  Args:
    checkpoint: opened.
    seed_path: where the seed is now; None for where the checkpoint says.

  Returns:
    The opened seed.

  Raises:
    ManifestError: if it is another seed.
    SeedError: if it cannot be read.
  """
  recorded = checkpoint.manifest['seed']
  if seed_path:
    source = sharded.open_source(seed_path, macro='INITIAL_CHECKPOINT_PATH')
  else:
    source = sharded.open_source(
      recorded['location'],
      macro=f'the seed that {checkpoint.location} names '
      '(if it was moved, INITIAL_CHECKPOINT_PATH says where it is)',
    )
  fingerprint = sharded.fingerprint(source)
  if fingerprint != recorded['fingerprint']:
    raise manifest_lib.ManifestError(
      f'{checkpoint.location} was trained from the seed '
      f'{recorded["location"]} with the fingerprint '
      f'{recorded["fingerprint"]}; {source.location} has '
      f'{fingerprint}. Give its own seed as INITIAL_CHECKPOINT_PATH'
    )
  return source


def log_plan(plan: plans.Plan, shapes: Mapping[str, Any]) -> None:
  """Logs what a run may change, and how large its checkpoints will be.

  Args:
    plan: of the run.
    shapes: of a checkpoint's arrays, by path.
  """
  sizes = delta_checkpoint.array_bytes(shapes)
  logging.info(
    'Method %s: %d of %d parameters in %d silos. A checkpoint will hold %d '
    'bytes of delta, %d of inner optimizer state and %d of counters and '
    'manifest, before compression; dataset state comes on top.',
    plan.method.name,
    plan.budget,
    plan.total,
    len(plan.silos.names),
    sizes['delta'],
    sizes['inner'],
    sizes['other'],
  )
