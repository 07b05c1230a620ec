"""What several commands need: adapted models, bindings, options."""

import importlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import click


class Model(NamedTuple):
  """A seed with or without a delta, ready to be used.

  Attributes:
    config: of the network.
    params: host arrays.
    seed: where the seed came from.
    delta: path of the delta, or None.
  """

  config: Any
  params: Any
  seed: str
  delta: str | None


def model(seed: str, delta: str | None) -> Model:
  """Returns a seed, with a delta applied and verified if one is given.

  Args:
    seed: path of the seed, or 'bundled'.
    delta: path of the delta.

  Returns:
    The model.

  Raises:
    ValueError: if either cannot be used, or they do not belong together.
  """
  from dst_t5x import delta as delta_lib
  from dst_t5x import seeds
  from dst_t5x.delta.file import container
  from dst_t5x.standalone.seed_network import network_config

  read = seeds.read(seed)
  config = network_config(read, network(read))
  params = read.params
  if delta is not None:
    params = delta_lib.apply(params, container.read(delta))
  return Model(config, params, seed, delta)


def network(seed: Any) -> Any:
  """Returns the network of a seed, from its shapes if it does not say.

  Args:
    seed: that was read.

  Returns:
    The config; None if the seed says it itself.

  Raises:
    ValueError: if it does not, and no T5 1.1 has these shapes.
  """
  if seed.config is not None:
    return None
  from dst_t5x.arrays import paths
  from dst_t5x.seeds import network_shapes as networks

  found = networks.from_shapes(paths.flatten(seed.params), seed.location)
  gates = ' × '.join(found.mlp_activations)
  click.echo(
    f'{seed.location} does not say what network it belongs to; its shapes are '
    f'those of a T5 1.1, taken to have {gates} in its feed-forward modules',
    err=True,
  )
  return found


def gin_bindings(arguments: Iterable[str]) -> list[str]:
  """Returns `--gin.NAME=VALUE` arguments as gin bindings.

  Args:
    arguments: what no option of the command took.

  Returns:
    Bindings such as "EPSILON=0.001".

  Raises:
    click.UsageError: if an argument is no such binding.
  """
  found = []
  for argument in arguments:
    if not argument.startswith('--gin.') or '=' not in argument:
      raise (
        click.NoSuchOption(argument)
        if argument.startswith('-')
        else click.UsageError(f'unexpected argument {argument!r}')
      )
    found.append(argument.removeprefix('--gin.'))
  return found


def import_modules(names: Sequence[str]) -> None:
  """Imports the modules that register a user's tasks.

  Args:
    names: importable module names.

  Raises:
    ValueError: if one cannot be imported.
  """
  # Before any module of the user's: it keeps TensorFlow quiet.
  importlib.import_module('dst_t5x.standalone.quiet_tensorflow')
  for name in names:
    try:
      importlib.import_module(name)
    except ImportError as error:
      raise ValueError(f'cannot import module {name!r}: {error}') from error


seed_option = click.option(
  '--seed',
  default='bundled',
  show_default=True,
  metavar='PATH',
  help="Seed: 'bundled', a .safetensors file, or a T5X, Orbax or Hugging Face "
  'checkpoint.',
)
delta_option = click.option(
  '--delta', metavar='FILE', help='Delta to apply to the seed first.'
)
beam_option = click.option(
  '--beam-size',
  type=click.IntRange(min=1),
  default=1,
  show_default=True,
  help='Beams; 1 decodes greedily.',
)
json_option = click.option(
  '--json', 'as_json', is_flag=True, help='Print JSON.'
)
