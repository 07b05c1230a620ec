"""From gin files to a run of the standalone runner."""

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gin
import optax

from dst_t5x.arrays import known_names
from dst_t5x.core.methods import Method, SiloScheme
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.recipes import gin_path
from dst_t5x.standalone.optimizers import Optimizer
from dst_t5x.standalone.settings import TrainSettings

# Macros of the files in gin/models/, and the network's fields that they set.
_SIZE_MACROS = {
  'VOCAB_SIZE': 'vocab_size',
  'EMB_DIM': 'emb_dim',
  'NUM_HEADS': 'num_heads',
  'NUM_ENCODER_LAYERS': 'num_encoder_layers',
  'NUM_DECODER_LAYERS': 'num_decoder_layers',
  'HEAD_DIM': 'head_dim',
  'MLP_DIM': 'mlp_dim',
  'MLP_ACTIVATIONS': 'mlp_activations',
  'LOGITS_VIA_EMBEDDING': 'logits_via_embedding',
}


class GinError(ValueError):
  """A gin file or binding is wrong."""


class Run(NamedTuple):
  """What `hosts/standalone.gin` binds; see `TrainSettings` for the meanings.

  Attributes:
    method: see `methods`.
    mixture_or_task_name: a registered seqio task or mixture.
    task_feature_lengths: tokens of each feature (count).
    initial_checkpoint_path: the seed.
    model_dir: the run's directory.
    train_steps: steps (count).
    batch_size: rows of a batch (count).
    epsilon: fraction of all parameters in (0, 1], or None.
    budget: number of parameters (count), or None.
    silos: scheme, or None for the method's own.
    learning_rate: number or optax schedule.
    optimizer: function of the learning rate.
    dropout_rate: probability.
    random_seed: of data, dropout and drawn subsets.
    eval_period: steps between evaluations (count), 0 for none.
    checkpoint_period: steps between checkpoints (count).
    use_cached: whether the task reads seqio's cache.
  """

  method: Method
  mixture_or_task_name: str
  task_feature_lengths: Mapping[str, int]
  initial_checkpoint_path: str
  model_dir: str
  train_steps: int
  batch_size: int
  epsilon: float | None
  budget: int | None
  silos: SiloScheme | None
  learning_rate: optax.ScalarOrSchedule
  optimizer: Optimizer
  dropout_rate: float
  random_seed: int
  eval_period: int
  checkpoint_period: int
  use_cached: bool

  def settings(self) -> TrainSettings:
    """Returns the settings without seed and directory."""
    fields = self._asdict()
    del fields['initial_checkpoint_path'], fields['model_dir']
    return TrainSettings(**fields)


def parse(
  files: Sequence[str],
  bindings: Sequence[str],
  *,
  search_paths: Sequence[str] = (),
) -> tuple[Run, NetworkConfig | None]:
  """Returns the run that gin files and bindings describe.

  Args:
    files: gin files, found in the working directory, in `search_paths`, and in
      our own gin root, in this order.
    bindings: such as "EPSILON=0.001"; they override the files.
    search_paths: more places for files.

  Returns:
    The run, and the network if the files name one.

  Raises:
    GinError: if a file is not found, a name in a file or binding is unknown,
      or something that is required is missing.
  """
  gin.clear_config()
  for place in ('', *search_paths, *map(str, gin_path.search_paths())):
    gin.add_config_file_search_path(place)
  try:
    with no_logs(), gin.unlock_config():
      gin.parse_config_files_and_bindings(
        list(files),
        None,
        finalize_config=False,
        print_includes_and_imports=False,
      )
      _check_macros(gin.config_str(), bindings)
      gin.parse_config(list(bindings))
    run = gin.get_configurable(Run)()
  except OSError as error:
    raise GinError(
      f'{error}; our own files are found by names such as methods/dst.gin, '
      'see dst-t5x gin-path'
    ) from error
  except (ValueError, TypeError, RuntimeError, SyntaxError) as error:
    if isinstance(error, GinError):
      raise
    raise GinError(_first_lines(str(error))) from error
  open_fields = [k for k, v in run._asdict().items() if v is gin.REQUIRED]
  if open_fields:
    raise GinError(
      f'required but not bound: {", ".join(open_fields)}; bind the macro of '
      'that name, such as --gin.TRAIN_STEPS=300 (hosts/standalone.gin lists '
      'them)'
    )
  return run, _network()


@contextlib.contextmanager
def no_logs() -> Iterator[None]:
  """Keeps quiet about the places where gin looks for a file in vain.

  Example:
    >>> with no_logs():
    ...   logging.error('not shown')
  """
  logging.disable(logging.ERROR)
  try:
    yield
  finally:
    logging.disable(logging.NOTSET)


def _check_macros(config: str, bindings: Sequence[str]) -> None:
  """Raises if a binding names a macro that nothing knows.

  Gin accepts any macro and, if nothing reads it, does nothing with it.
  """
  known = set(re.findall(r'^([A-Za-z_]\w*) =', config, re.MULTILINE))
  known |= set(re.findall(r'%([A-Za-z_]\w*)', config))
  known |= set(_SIZE_MACROS)
  for binding in bindings:
    name, equals, _ = binding.partition('=')
    name = name.strip()
    if not equals:
      raise GinError(f'gin binding {binding!r} must be NAME=VALUE')
    if re.fullmatch(r'[A-Za-z_]\w*', name) and name not in known:
      raise GinError(
        f'--gin.{name} names nothing in the gin files'
        + known_names.hint(name, sorted(known))
      )


def _network() -> NetworkConfig | None:
  found: dict[str, Any] = {}
  missing = []
  for macro, field in _SIZE_MACROS.items():
    try:
      found[field] = gin.query_parameter(f'{macro}/gin.macro.value')
    except ValueError:
      missing.append(macro)
  if not found:
    return None
  if missing:
    raise GinError(
      f'the network is incomplete: {", ".join(missing)} not bound; the files '
      'in models/ bind all sizes'
    )
  found['mlp_activations'] = tuple(found['mlp_activations'])
  return NetworkConfig.from_dict(found)


def _first_lines(text: str) -> str:
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  return ' '.join(lines[:6])
