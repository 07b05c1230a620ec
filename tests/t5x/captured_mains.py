"""What gin hands to T5X's mains, kept instead of run.

As `sys.modules['__main__']`, this module takes the place of T5X's mains: gin
binds the arguments of its functions, which return them.
"""

import contextlib
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any

import gin
import jax
import pytest
from gin import config as gin_config

from dst_t5x.recipes import gin_path

THIS = sys.modules[__name__]
# What some of T5X's configurations import and need not run here: the package
# `t5` pulls other versions of seqio and TFDS, and T5X's exports need
# tensorflow_serving.
ABSENT = ('t5', 't5.data', 't5.data.mixtures', 't5.data.tasks')
EXPORTS = 't5x.export_lib'
# What gin calls that of which each main knows another, or one alone.
_OF_ONE_MAIN = (
  't5x.examples.',
  *(f'{main}_script.' for main in ('train', 'eval', 'infer')),
)


def train(
  model: Any = None, trainer_cls: Any = None, **arguments: Any
) -> dict[str, Any]:
  """Stands for `t5x.train.train`."""
  return {'model': model, 'trainer_cls': trainer_cls, **arguments}


def evaluate(
  model: Any = None, restore_checkpoint_cfg: Any = None, **arguments: Any
) -> dict[str, Any]:
  """Stands for `t5x.eval.evaluate`."""
  own = {'model': model, 'restore_checkpoint_cfg': restore_checkpoint_cfg}
  return {**own, **arguments}


def infer(
  model: Any = None, restore_checkpoint_cfg: Any = None, **arguments: Any
) -> dict[str, Any]:
  """Stands for `t5x.infer.infer`."""
  own = {'model': model, 'restore_checkpoint_cfg': restore_checkpoint_cfg}
  return {**own, **arguments}


def precompile(model: Any = None, **arguments: Any) -> dict[str, Any]:
  """Stands for `t5x.precompile.precompile`."""
  return {'model': model, **arguments}


def create_task_from_tfexample_file(**_: Any) -> str:
  """Stands for the task that infer_from_tfexample_file.gin names."""
  return 'number_words'


def jax_init_fn(**_: Any) -> None:
  """Stands for what precompile.gin names."""


@contextlib.contextmanager
def read(
  files: Sequence[str], bindings: Sequence[str] = (), main: Any = THIS
) -> Iterator[None]:
  """Reads files and bindings as a main would, to the end.

  Args:
    files: names of gin files, found as T5X finds them.
    bindings: of the command line.
    main: the module that is the main one.
  """
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(sys.modules, '__main__', main)
    for name in ABSENT:
      module = types.ModuleType(name)
      patch.setitem(sys.modules, name, module)
      parent, _, child = name.rpartition('.')
      if parent:
        patch.setattr(sys.modules[parent], child, module, raising=False)
    patch.setitem(sys.modules, EXPORTS, _Anything(EXPORTS))
    _forget_others(patch)
    for folder in gin_path.search_paths():
      gin.add_config_file_search_path(str(folder))
    gin.clear_config()
    try:
      gin.parse_config_files_and_bindings(list(files), list(bindings))
      yield
    finally:
      gin.clear_config()


class _Anything(types.ModuleType):
  """A module that has a function of every name."""

  def __getattr__(self, name: str) -> Any:
    if name.startswith('__'):
      raise AttributeError(name)

    def function(**_: Any) -> None:
      """Takes any arguments."""

    function.__name__ = function.__qualname__ = name
    function.__module__ = self.__name__
    setattr(self, name, function)
    return function


def _forget_others(patch: pytest.MonkeyPatch) -> None:
  """Hides the mains and networks that other tests have read from gin.

  A main reads one configuration, some of which name their network by a name
  that is ambiguous beside those of others.
  """
  registry = gin_config._REGISTRY
  kept = type(registry)()
  for selector, configurable in registry.items():
    if not selector.startswith(_OF_ONE_MAIN):
      kept[selector] = configurable
  patch.setattr(gin_config, '_REGISTRY', kept)
  known = {id(configurable) for _, configurable in kept.items()}
  inverse = gin_config._INVERSE_REGISTRY
  patch.setattr(
    gin_config,
    '_INVERSE_REGISTRY',
    {key: each for key, each in inverse.items() if id(each) in known},
  )


def arguments_of(main: str) -> dict[str, Any]:
  """Returns what gin hands to a main, inside `read`."""
  return gin.get_configurable(getattr(THIS, main))()


def input_shapes(model: Any, length: int = 8) -> dict[str, tuple[int, int]]:
  """Returns the shapes of one row of a model's inputs."""
  features = model.FEATURE_CONVERTER_CLS.MODEL_FEATURES
  return {name: (1, length) for name in features if 'segment' not in name}


def shapes_of(model: Any) -> Any:
  """Returns the shapes of a model's parameters."""
  shapes = input_shapes(model)
  return jax.eval_shape(
    lambda rng: model.get_initial_variables(rng, shapes), jax.random.key(0)
  )['params']


class ShapesAlone:
  """A seed that has shapes and no values; see `dst_t5x.arrays.source`."""

  location, layout, step, config = 'shapes alone', 't5x', 1_000_000, None

  def __init__(self, specs: dict[str, Any]):
    self._specs = specs

  def specs(self) -> dict[str, Any]:
    return self._specs
