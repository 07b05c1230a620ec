"""A method on top of any configuration of T5X: hosts/on_top_t5x.gin.

When gin has read the last file, it asks `bindings` for more. That looks at what
the configuration binds for T5X's `train`, `evaluate` or `infer`, and puts our
hooks around it: the initializer that begins at the seed and wraps the model's
optimizer, the checks around the trainer, and a checkpoint configuration that
does not restore the seed as if it were a delta checkpoint.
"""

import copy
import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import gin
from absl import logging
from t5x import utils  # type: ignore

from dst_t5x.checkpoint import delta_checkpoint
from dst_t5x.core import rates
from dst_t5x.core.methods import Method, SiloScheme
from dst_t5x.core.silos import SiloError
from dst_t5x.hooks import restore, steps
from dst_t5x.hooks.base_rate import BaseRate
from dst_t5x.hooks.optimizer import Selective
from dst_t5x.recipes.unread_method import reads

# gin's configuration: parameters by scope and name of what they are bound to.
Config = Mapping[tuple[str, str], Mapping[str, Any]]
Bindings = dict[tuple[str, str, str], Any]

FILE = 'hosts/on_top_t5x.gin'
# What tells T5X's functions from others of the same name.
_MAINS = {
  'train': 'trainer_cls',
  'evaluate': 'restore_checkpoint_cfg',
  'infer': 'restore_checkpoint_cfg',
}
# Macros, and the arguments of `TrainInitializer` that they are for.
_MACROS = {
  'METHOD': 'method',
  'EPSILON': 'epsilon',
  'BUDGET': 'budget',
  'SILOS': 'silos',
  'INNER_STATE': 'inner_state',
  'TRACK_OVERLAP': 'track_overlap',
  'INITIAL_CHECKPOINT_PATH': 'seed_path',
}
_ROOM = 'dst_t5x.hooks'
_ASKED_FOR = f'{_ROOM}.on_top.bindings'
_CONNECTED = {f'{_ROOM}.on_top.without_seed', f'{_ROOM}.on_top.checkpoint_path'}


class OnTopError(ValueError):
  """A configuration of T5X that no method can be put on top of."""


class TrainInitializer(restore.TrainInitializer):
  """Begins a run of a user's own configuration at its seed.

  T5X gives the first five arguments, `bindings` most others.

  Args:
    optimizer_def: the model's; it becomes the inner optimizer.
    init_fn: the model's.
    input_shapes: of a batch.
    partitioner: with rules for all of the model's axes.
    input_types: of a batch.
    method: see `dst_t5x.core.methods`.
    checkpoint_cfg: T5X's `CheckpointConfig`; what it restores is the seed.
    model_dir: where the run keeps its checkpoints.
    total_steps: where T5X's step count ends (count); the seed's own included.
    relative_steps: the run's own steps (count), instead of `total_steps`.
    random_seed: of the subsets that some methods draw; None for 0.
    base_rate: of the trainer's schedule; None if nobody knows it.
    factors: of the trainer's schedule.
    seed_path: of the seed, instead of what `checkpoint_cfg` restores.
    epsilon: fraction of all parameters in (0, 1].
    budget: number of parameters (count), instead of `epsilon`.
    silos: scheme or rules instead of the method's own.
    inner_state: 'full' saves the inner optimizer's state, 'none' leaves it out.
    track_overlap: whether a metric compares the subset with the first step's.

  Raises:
    OnTopError: if there is no seed, or the seed cannot be read as the
      configuration would restore it.
    ManifestError, SeedError, SiloError, ValueError: as
      `restore.TrainInitializer`.
  """

  def __init__(
    self,
    optimizer_def: Any,
    init_fn: Any,
    input_shapes: Any,
    partitioner: Any,
    input_types: Any = None,
    *,
    method: Method,
    checkpoint_cfg: Any,
    model_dir: str,
    total_steps: int | None = None,
    relative_steps: int | None = None,
    random_seed: int | None = None,
    base_rate: float | None = None,
    factors: str | None = None,
    seed_path: str | None = None,
    epsilon: float | None = None,
    budget: int | None = None,
    silos: SiloScheme | None = None,
    inner_state: str = 'full',
    track_overlap: bool = False,
  ):
    seed_path = seed_path or restored_path(checkpoint_cfg)
    start = steps.of_seed(seed_path)
    total_steps = start + relative_steps if relative_steps else total_steps
    if total_steps is None:
      raise OnTopError('the run has no end: set TRAIN_STEPS')
    save = checkpoint_cfg.save
    optimizer = Selective(
      from_the_seed_on(optimizer_def, start),
      method,
      epsilon=epsilon,
      budget=budget,
      silos=silos,
      keep_first=track_overlap,
      random_seed=random_seed,
    )
    super().__init__(
      optimizer_def=optimizer,
      init_fn=init_fn,
      input_shapes=input_shapes,
      partitioner=partitioner,
      input_types=input_types,
      seed_path=seed_path,
      model_dir=model_dir,
      total_steps=total_steps,
      inner_state=inner_state,
      restore_dataset=bool(save and save.save_dataset),
      base_rate=None if base_rate is None else BaseRate(base_rate, False),
    )
    if base_rate is not None and factors == 'constant':
      plan = optimizer.plan(self.global_train_state_shape.params)
      _advise_on_rate(base_rate, optimizer, plan)


def restored_path(checkpoint_cfg: Any) -> str:
  """Returns the checkpoint that a configuration of T5X begins a run with.

  Args:
    checkpoint_cfg: T5X's `CheckpointConfig`.

  Returns:
    Its location.

  Raises:
    OnTopError: if there is none, or reading it takes more than its location.
  """
  cfg = checkpoint_cfg.restore
  if cfg is None or not cfg.path:
    raise OnTopError(
      'this configuration starts from random parameters, and a method needs a '
      'seed: set INITIAL_CHECKPOINT_PATH to the checkpoint to fine-tune'
    )
  renamed = [rule for rule in cfg.assignment_map or () if rule[1] is not None]
  if renamed or cfg.state_transformation_fns:
    what = 'assignment_map' if renamed else 'state_transformation_fns'
    raise OnTopError(
      f'this configuration restores {cfg.path!r} through '
      f'RestoreCheckpointConfig.{what}, and a seed is read as it is: let stock '
      'T5X restore and save it once, and set INITIAL_CHECKPOINT_PATH to that '
      'checkpoint'
    )
  path = _one_path(cfg.path)
  if cfg.mode == 'latest':
    return delta_checkpoint.latest(path) or path
  return path


def without_seed(checkpoint_cfg: Any) -> Any:
  """Returns T5X's checkpoint configuration without what begins the run.

  T5X would restore the seed as if it were a checkpoint of this run; our
  initializer reads it instead.

  Args:
    checkpoint_cfg: T5X's `CheckpointConfig`.

  Returns:
    The same, with `restore = None`.
  """
  return dataclasses.replace(checkpoint_cfg, restore=None)


def checkpoint_path(restore_checkpoint_cfg: Any) -> str:
  """Returns the checkpoint that T5X evaluates or infers from.

  Args:
    restore_checkpoint_cfg: T5X's `RestoreCheckpointConfig`.

  Returns:
    Its location, or that of the folder with all of a run's.

  Raises:
    OnTopError: if it names several.
  """
  return _one_path(restore_checkpoint_cfg.path)


def from_the_seed_on(optimizer_def: Any, start: int) -> Any:
  """Returns an optimizer that counts the run's own steps from 0.

  A configuration that fine-tunes with T5X subtracts the seed's steps by
  `step_offset`; our hooks hand over a count without them.

  Args:
    optimizer_def: T5X's.
    start: the seed's step (count).

  Returns:
    The same optimizer, or a copy without that offset.

  Raises:
    OnTopError: if there is no optimizer, or it is one of ours already.
  """
  if optimizer_def is None or isinstance(optimizer_def, Selective):
    what = 'no optimizer' if optimizer_def is None else 'optimizer.Selective'
    raise OnTopError(
      f"the model's optimizer_def is {what}, and {FILE} wraps T5X's own: bind "
      'that one'
    )
  hyper_params = getattr(optimizer_def, 'hyper_params', None)
  if not start or getattr(hyper_params, 'step_offset', 0) != start:
    return optimizer_def
  logging.info(
    "step_offset = %d, the seed's own steps, is left out: the inner optimizer "
    "counts the run's steps, from 0.",
    start,
  )
  optimizer_def = copy.copy(optimizer_def)
  optimizer_def.hyper_params = hyper_params.replace(step_offset=0)
  return optimizer_def


def first_step(checkpoint_cfg: Any, seed_path: str | None = None) -> int:
  """Returns the step at which a run begins, in T5X's count.

  Args:
    checkpoint_cfg: T5X's `CheckpointConfig`; what it restores is the seed.
    seed_path: of the seed, instead of that.

  Returns:
    The seed's own step; 0 if it tells none.

  Raises:
    OnTopError, SeedError: if there is no seed, or it cannot be read.
  """
  return steps.of_seed(seed_path or restored_path(checkpoint_cfg))


@gin.config.register_finalize_hook
def bindings(config: Config, hooks: Sequence[Any] = ()) -> Bindings:
  """Returns what is bound besides, when gin has read the last file.

  Args:
    config: gin's; one that did not read our file is left alone.
    hooks: for gin alone, which must read a name before a value may hold it.

  Returns:
    Values by scope, name and argument.

  Raises:
    OnTopError: if no method can be put on top.

  Example:
    >>> bindings({('', 'my.optimizer'): {'rate': 0.1}})
    {}
  """
  del hooks
  names = {name for _, name in config}
  # One that T5X wrote beside a run of this kind has all its bindings.
  if _ASKED_FOR not in names or names & _CONNECTED:
    return {}
  (scope, main), parameters = _main(config)
  bound = parameters.get('train_state_initializer_cls')
  if bound is not None:
    raise OnTopError(
      f'{main} has train_state_initializer_cls = {bound} already; {FILE} is '
      'for configurations that bind nothing of dst_t5x: leave one of them out'
    )
  if main.rpartition('.')[2] != 'train':
    return _inference(config, scope, main, parameters)
  return _training(config, scope, main, parameters)


def _training(
  config: Config, scope: str, main: str, parameters: Mapping[str, Any]
) -> Bindings:
  """Returns what a training run needs."""
  if ('METHOD', 'gin.macro') not in config:
    raise OnTopError(
      f'{FILE} needs a method: add a file of methods/, such as '
      '--gin_file=methods/dst.gin'
    )
  if parameters.get('use_orbax') is False:
    raise OnTopError(
      f'{main} has use_orbax = False, and deltas are saved through Orbax: '
      'leave that binding out'
    )
  values: Bindings = {
    (scope, main, 'train_state_initializer_cls'): _reference(
      'on_top.TrainInitializer'
    ),
    (scope, main, 'checkpoint_cfg'): _reference('on_top.without_seed()'),
    _ours('on_top.without_seed', 'checkpoint_cfg'): parameters[
      'checkpoint_cfg'
    ],
    (scope, main, 'trainer_cls'): _reference('save_checks.checked_trainer'),
    _ours('save_checks.checked_trainer', 'trainer_cls'): parameters[
      'trainer_cls'
    ],
  }
  for name in (
    *('checkpoint_cfg', 'model_dir', 'total_steps', 'relative_steps'),
    'random_seed',
  ):
    if name in parameters:
      values[_ours('on_top.TrainInitializer', name)] = parameters[name]
  for macro, name in _MACROS.items():
    if (macro, 'gin.macro') in config:
      values[_ours('on_top.TrainInitializer', name)] = gin.config.parse_value(
        f'%{macro}'
      )
  if 'get_dataset_fn' not in parameters:
    values |= {
      (scope, main, 'get_dataset_fn'): _reference('datasets.get_dataset'),
      _ours('datasets.get_dataset', 'first_step'): _reference(
        'on_top.first_step()'
      ),
      _ours('on_top.first_step', 'checkpoint_cfg'): parameters[
        'checkpoint_cfg'
      ],
    }
    if ('INITIAL_CHECKPOINT_PATH', 'gin.macro') in config:
      values[_ours('on_top.first_step', 'seed_path')] = gin.config.parse_value(
        '%INITIAL_CHECKPOINT_PATH'
      )
  values |= _schedule(config)
  return values | _metrics(config, parameters['trainer_cls'])


def _inference(
  config: Config, scope: str, main: str, parameters: Mapping[str, Any]
) -> Bindings:
  """Returns what an evaluation or inference needs."""
  values: Bindings = {
    (scope, main, 'train_state_initializer_cls'): _reference(
      'restore.InferenceInitializer'
    ),
    _ours('restore.InferenceInitializer', 'checkpoint_path'): _reference(
      'on_top.checkpoint_path()'
    ),
    _ours('on_top.checkpoint_path', 'restore_checkpoint_cfg'): parameters[
      'restore_checkpoint_cfg'
    ],
  }
  if ('INITIAL_CHECKPOINT_PATH', 'gin.macro') in config:
    values[_ours('restore.InferenceInitializer', 'seed_path')] = (
      gin.config.parse_value('%INITIAL_CHECKPOINT_PATH')
    )
  return values


def _schedule(config: Config) -> Bindings:
  """Returns the base rate of T5X's schedule, as far as the bindings tell it."""
  schedules = {
    key: parameters
    for key, parameters in config.items()
    if key[1].rpartition('.')[2] == 'create_learning_rate_scheduler'
  }
  values: Bindings = {}
  given = ('LEARNING_RATE', 'gin.macro') in config
  if given and not reads(config, 'LEARNING_RATE'):
    if len(schedules) != 1:
      raise OnTopError(
        'LEARNING_RATE is set, and this configuration has '
        f'{len(schedules)} schedules of T5X to set it in: bind '
        'Trainer.learning_rate_fn yourself'
      )
    rate = gin.config.parse_value('%LEARNING_RATE')
    ((scope, name),) = schedules
    values[(scope, name, 'base_learning_rate')] = rate
    schedules = {
      (scope, name): {**schedules[scope, name], 'base_learning_rate': rate}
    }
  if len(schedules) == 1:
    ((scope, name), parameters) = schedules.popitem()
    for parameter, ours in (
      ('base_learning_rate', 'base_rate'),
      ('factors', 'factors'),
    ):
      if parameter in parameters:
        values[_ours('on_top.TrainInitializer', ours)] = parameters[parameter]
  return values


def _metrics(config: Config, trainer_cls: Any) -> Bindings:
  """Returns the binding of our metrics, where the trainer takes some."""
  reference = getattr(trainer_cls, 'configurable', None)
  if reference is None:
    return {}
  accepted = inspect.signature(reference.wrapped).parameters
  name = 'weight_metrics_computer'
  key = ('/'.join(trainer_cls.scopes), reference.selector)
  if name not in accepted or name in config.get(key, {}):
    logging.info('%s keeps its own weight metrics.', trainer_cls)
    return {}
  return {(*key, name): _reference('subset_metrics.SubsetMetrics()')}


def _main(config: Config) -> tuple[tuple[str, str], Mapping[str, Any]]:
  """Returns which of T5X's functions the configuration is for."""
  mains = [
    (key, parameters)
    for key, parameters in config.items()
    if _MAINS.get(key[1].rpartition('.')[2]) in parameters
  ]
  if len(mains) != 1:
    raise OnTopError(
      f"{FILE} goes on top of a configuration of T5X's train, eval or infer, "
      + (
        'and none is bound here: give your own --gin_file before it'
        if not mains
        else 'and several are bound here: '
        + ', '.join(name for (_, name), _ in mains)
      )
    )
  return mains[0]


def _advise_on_rate(rate: float, optimizer: Selective, plan: Any) -> None:
  """Warns of a rate that is far below the rule for the method and budget."""
  scaled = getattr(
    optimizer.hyper_params, 'multiply_by_parameter_scale', False
  )
  if scaled is not True or optimizer.method.score is None:
    return
  rule = rates.for_method(
    optimizer.method, budget=plan.budget, total=plan.total
  )
  if rate < rule / 3:
    logging.warning(
      'The base learning rate of this configuration is %g. For %s at %d of %d '
      'parameters the rule for Adafactor is %.3g, since a smaller subset takes '
      'larger steps: --gin.LEARNING_RATE=%.3g takes it.',
      rate,
      optimizer.method.name,
      plan.budget,
      plan.total,
      rule,
      rule,
    )


def _one_path(path: Any) -> str:
  if isinstance(path, str):
    return path
  paths = list(path)
  if len(paths) != 1:
    raise OnTopError(
      f'one checkpoint is read at a time, and path = {paths!r} names '
      f'{len(paths)}'
    )
  return paths[0]


def _reference(text: str) -> Any:
  """Returns gin's value for '@' and a name in `dst_t5x.hooks`."""
  return gin.config.parse_value(f'@{_ROOM}.{text}')


def _ours(name: str, parameter: str) -> tuple[str, str, str]:
  return ('', f'{_ROOM}.{name}', parameter)
