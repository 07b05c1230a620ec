"""What hosts/on_top_t5x.gin binds, when the rest of a configuration is read.

When gin has read the last file, it asks `bindings` for more: a finalize hook,
in gin's words. Only then is it known which optimizer, trainer and checkpoints
the user binds.
"""

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging
from gin import config as gin_config

from dst_t5x.core import plans
from dst_t5x.core.methods import Method
from dst_t5x.hooks.on_top.user_checkpoints import OnTopError
from dst_t5x.recipes.unread_method import reads

# gin's configuration: parameters by scope and name of what they are bound to.
Config = Mapping[tuple[str, str], Mapping[str, Any]]

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
# Arguments of T5X's `train` that `TrainInitializer` takes, too.
_SHARED = (
  *('checkpoint_cfg', 'model_dir', 'total_steps', 'relative_steps'),
  'random_seed',
)
_HOOKS = 'dst_t5x.hooks'
_ON_TOP = f'{_HOOKS}.on_top'
_INITIALIZER = f'{_ON_TOP}.initializer.TrainInitializer'
_INFERENCE = f'{_HOOKS}.restore.InferenceInitializer'
_WITHOUT_SEED = f'{_ON_TOP}.user_checkpoints.without_seed'
_FIRST_STEP = f'{_ON_TOP}.user_checkpoints.first_step'
_PATH = f'{_ON_TOP}.user_checkpoints.checkpoint_path'
_DATASET = f'{_HOOKS}.datasets.get_dataset'
_TRAINER = f'{_HOOKS}.save_checks.checked_trainer'
_METRICS = f'{_HOOKS}.subset_metrics.SubsetMetrics'


@gin_config.register_finalize_hook
def bindings(config: Config, hooks: Sequence[Any] = ()) -> dict[str, Any]:
  """Returns what is bound besides, when gin has read the last file.

  Args:
    config: gin's; one that did not read our file is left alone.
    hooks: for gin alone, which must read a name before a value may hold it.

  Returns:
    Values by gin's names of the parameters.

  Raises:
    OnTopError: if no method can be put on top.

  Example:
    >>> bindings({('', 'my.optimizer'): {'rate': 0.1}})
    {}
  """
  del hooks
  names = {name for _, name in config}
  # One that T5X wrote beside a run of this kind has all its bindings.
  connected = names & {_WITHOUT_SEED, _PATH}
  if f'{_ON_TOP}.gin_bindings.bindings' not in names or connected:
    return {}
  main, parameters = _main(config)
  bound = parameters.get('train_state_initializer_cls')
  if bound is not None:
    raise OnTopError(
      f'{main} has train_state_initializer_cls = {bound} already; {FILE} is '
      'for configurations that bind nothing of dst_t5x: leave one of them out'
    )
  if main.rpartition('.')[2] == 'train':
    return _training(config, main, parameters)
  return _inference(config, main, parameters)


def _training(
  config: Config, main: str, parameters: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns what a training run needs."""
  if not _is_bound(config, 'METHOD'):
    raise OnTopError(
      f'{FILE} needs a method: add a file of methods/, such as '
      '--gin_file=methods/dst.gin'
    )
  if 'checkpoint_cfg' not in parameters:
    raise OnTopError(f'{main} has no checkpoint_cfg; T5X needs one')
  if parameters.get('use_orbax') is False:
    raise OnTopError(
      f'{main} has use_orbax = False, and deltas are saved through Orbax: '
      'leave that binding out'
    )
  _check_budget(config)
  values = {
    f'{main}.train_state_initializer_cls': _value(f'@{_INITIALIZER}'),
    f'{main}.checkpoint_cfg': _value(f'@{_WITHOUT_SEED}()'),
    f'{_WITHOUT_SEED}.checkpoint_cfg': parameters['checkpoint_cfg'],
    f'{main}.trainer_cls': _value(f'@{_TRAINER}'),
    f'{_TRAINER}.trainer_cls': parameters['trainer_cls'],
  }
  values |= {
    f'{_INITIALIZER}.{name}': parameters[name]
    for name in _SHARED
    if name in parameters
  }
  values |= {
    f'{_INITIALIZER}.{name}': _value(f'%{macro}')
    for macro, name in _MACROS.items()
    if _is_bound(config, macro)
  }
  if 'get_dataset_fn' not in parameters:
    values |= {
      f'{main}.get_dataset_fn': _value(f'@{_DATASET}'),
      f'{_DATASET}.first_step': _value(f'@{_FIRST_STEP}()'),
      f'{_FIRST_STEP}.checkpoint_cfg': parameters['checkpoint_cfg'],
      **_seed_path(config, _FIRST_STEP),
    }
  return values | _schedule(config) | _metrics(config, parameters)


def _inference(
  config: Config, main: str, parameters: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns what an evaluation or inference needs."""
  return {
    f'{main}.train_state_initializer_cls': _value(f'@{_INFERENCE}'),
    f'{_INFERENCE}.checkpoint_path': _value(f'@{_PATH}()'),
    f'{_PATH}.restore_checkpoint_cfg': parameters['restore_checkpoint_cfg'],
    **_seed_path(config, _INFERENCE),
  }


def _check_budget(config: Config) -> None:
  """Raises if no model could have the budget, before any data is read."""
  # A copy of what gin binds is its value: gin replaces references by what they
  # return.
  method, epsilon, budget = (
    copy.deepcopy(_value(f'%{macro}')) if _is_bound(config, macro) else None
    for macro in ('METHOD', 'EPSILON', 'BUDGET')
  )
  if isinstance(method, Method):
    plans.check_budget(method, epsilon=epsilon, budget=budget)


def _seed_path(config: Config, name: str) -> dict[str, Any]:
  """Returns where the seed lies, for one of our hooks, if a macro says it."""
  if not _is_bound(config, 'INITIAL_CHECKPOINT_PATH'):
    return {}
  return {f'{name}.seed_path': _value('%INITIAL_CHECKPOINT_PATH')}


def _schedule(config: Config) -> dict[str, Any]:
  """Returns the base rate of T5X's schedule, as far as the bindings tell it."""
  schedules = [
    (_name(key), parameters)
    for key, parameters in config.items()
    if key[1].rpartition('.')[2] == 'create_learning_rate_scheduler'
  ]
  ours = _is_bound(config, 'LEARNING_RATE') and not reads(
    config, 'LEARNING_RATE'
  )
  if len(schedules) != 1:
    if ours:
      raise OnTopError(
        'LEARNING_RATE is set, and this configuration has '
        f'{len(schedules)} schedules of T5X to set it in: bind '
        'Trainer.learning_rate_fn yourself'
      )
    return {}
  ((schedule, parameters),) = schedules
  values = {}
  if ours:
    rate = _value('%LEARNING_RATE')
    values[f'{schedule}.base_learning_rate'] = rate
    parameters = {**parameters, 'base_learning_rate': rate}
  for parameter, argument in (
    ('base_learning_rate', 'base_rate'),
    ('factors', 'factors'),
  ):
    if parameter in parameters:
      values[f'{_INITIALIZER}.{argument}'] = parameters[parameter]
  return values


def _metrics(config: Config, parameters: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the binding of our metrics, where the trainer takes some."""
  trainer_cls = parameters['trainer_cls']
  configurable = getattr(trainer_cls, 'configurable', None)
  if configurable is None:
    return {}
  key = ('/'.join(trainer_cls.scopes), configurable.selector)
  parameter = 'weight_metrics_computer'
  takes_some = parameter in inspect.signature(configurable.wrapped).parameters
  if not takes_some or parameter in config.get(key, {}):
    logging.info('%s keeps its own weight metrics.', trainer_cls)
    return {}
  values = {f'{_name(key)}.{parameter}': _value(f'@{_METRICS}()')}
  if _is_bound(config, 'SILO_METRICS'):
    values[f'{_METRICS}.by_silo'] = _value('%SILO_METRICS')
  return values


def _main(config: Config) -> tuple[str, Mapping[str, Any]]:
  """Returns which of T5X's functions the configuration is for."""
  mains = [
    (_name(key), parameters)
    for key, parameters in config.items()
    if _MAINS.get(key[1].rpartition('.')[2]) in parameters
  ]
  if len(mains) != 1:
    raise OnTopError(
      f"{FILE} goes on top of a configuration of T5X's train, eval or infer, "
      + (
        'and none is bound here: give your own --gin_file, too. To export a '
        'model, first make a whole one of its delta: dst-t5x delta merge'
        if not mains
        else 'and several are bound here: '
        + ', '.join(name for name, _ in mains)
      )
    )
  return mains[0]


def _name(key: tuple[str, str]) -> str:
  """Returns gin's name for a function or class within a scope."""
  scope, name = key
  return f'{scope}/{name}' if scope else name


def _is_bound(config: Config, macro: str) -> bool:
  return (macro, 'gin.macro') in config


def _value(text: str) -> Any:
  """Returns what gin makes of a value in a file."""
  return gin_config.parse_value(text)
