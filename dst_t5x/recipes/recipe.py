"""What T5X's flags say of a run, read without running it.

Gin files name T5X's classes, so that gin itself can only read them where T5X
is installed. A plan needs a few macros alone, which are plain values: gin's own
parser finds them, and nothing is imported.
"""

import io
import os
import pathlib
import tokenize
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gin import config_parser

from dst_t5x.arrays import known_names
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.recipes import gin_path

# A recipe that only says how large a model is gets the rest from here.
DEFAULTS = (
  'methods/dst.gin',
  'tasks/super_glue.gin',
  'runs/finetune_t5x.gin',
)


# Flags of T5X's mains, and of absl's, that gin does not read.
_OTHER_FLAGS = frozenset(
  'coordinator_address initialization_timeout multiprocess_gpu process_count '
  'process_index seqio_additional_cache_dirs shard_id tfds_data_dir '
  'alsologtostderr log_dir logger_levels logtostderr showprefixforinfo '
  'stderrthreshold v verbosity only_check_args pdb pdb_post_mortem '
  'profile_file run_with_pdb run_with_profiling '
  'use_cprofile_for_profiling'.split()
)


class RecipeError(ValueError):
  """Flags that cannot be read, or that say too little; tells which."""


class Reference(NamedTuple):
  """A value that names something to be called or handed over.

  Attributes:
    name: as in gin, without '@'.
    called: whether it ends in '()'.
  """

  name: str
  called: bool


class _Macro(NamedTuple):
  name: str


class Recipe(NamedTuple):
  """What a plan needs to know of a run.

  Attributes:
    network: sizes and dtype of the activations.
    method: name in `dst_t5x.core.methods`.
    epsilon: fraction of all parameters; None if a budget is given.
    budget: number of parameters (count), or None.
    batch_size: rows of a step, on all devices together (count).
    lengths: tokens of a row by feature (counts).
    num_partitions: ways that each parameter is split (count).
    seed_memory_kind: where the seed is kept; None beside the parameters.
    keep_first: whether the first step's subset is kept.
    optimizer: name of the inner optimizer, such as 'adafactor.Adafactor'.
    model_dir: where checkpoints go; None if the recipe does not say.
  """

  network: NetworkConfig
  method: str
  epsilon: float | None
  budget: int | None
  batch_size: int
  lengths: Mapping[str, int]
  num_partitions: int
  seed_memory_kind: str | None
  keep_first: bool
  optimizer: str
  model_dir: str | None


class Flags(NamedTuple):
  """T5X's flags that gin reads.

  Attributes:
    files: gin files, in order.
    bindings: such as 'EPSILON=0.01', in order.
    search_paths: folders given besides ours.
  """

  files: tuple[str, ...]
  bindings: tuple[str, ...]
  search_paths: tuple[str, ...]


def flags(arguments: Sequence[str]) -> Flags:
  """Returns what gin will read of T5X's flags.

  Args:
    arguments: as after `python -m t5x.train`.

  Returns:
    Files and bindings; T5X's other flags are left out.

  Raises:
    RecipeError: if an argument is no flag of T5X, or a flag lacks its value.

  Example:
    >>> flags(['--gin_file=models/byte_tiny.gin', '--gin.EPSILON=0.01'])[:2]
    (('models/byte_tiny.gin',), ('EPSILON=0.01',))
  """
  files, bindings, search_paths = [], [], []
  rest = iter(arguments)
  for argument in rest:
    if not argument.startswith('-'):
      raise RecipeError(
        f'{argument!r} is no flag of T5X: write --gin_file=FILE or '
        '--gin.NAME=VALUE'
      )
    name, equals, value = argument.lstrip('-').partition('=')
    if name in ('gin_file', 'gin_search_paths', 'gin_bindings') and not equals:
      value = next(rest, '')
      if not value or value.startswith('-'):
        raise RecipeError(f'--{name} lacks its value')
    if name == 'gin_file':
      files.append(value)
    elif name == 'gin_search_paths':
      search_paths += [each for each in value.split(',') if each]
    elif name.startswith('gin.'):
      if not equals:
        raise RecipeError(f'{argument} lacks its value: write {argument}=VALUE')
      bindings.append(f'{name.removeprefix("gin.")}={value}')
    elif name == 'gin_bindings':
      bindings.append(value)
    elif name.removeprefix('no') in _OTHER_FLAGS or name in _OTHER_FLAGS:
      continue
    else:
      close = known_names.nearest(
        name, (*_OTHER_FLAGS, 'gin_file', 'gin_search_paths', 'gin.')
      )
      raise RecipeError(
        f'T5X has no flag {argument!r}'
        + (f'; did you mean --{close[0]}?' if close else '')
      )
  return Flags(tuple(files), tuple(bindings), tuple(search_paths))


def read(found: Flags) -> Recipe:
  """Returns what the gin files and bindings of a run say.

  Args:
    found: see `flags`. Files that say nothing of the method, the task or the
      run get those in `DEFAULTS` before them.

  Returns:
    The recipe.

  Raises:
    RecipeError: if a file is missing or cannot be read, or a macro that a plan
      needs is not bound to a plain value.

  Example:
    >>> found = read(Flags(('models/byte_tiny.gin',), ('EPSILON=0.01',), ()))
    >>> found.method, found.batch_size, found.network.emb_dim
    ('dst', 128, 96)
  """
  macros = _macros(complete(found))

  def value(name: str) -> Any:
    if name not in macros:
      raise RecipeError(
        f'the recipe does not bind {name}: give a gin file that does, such as '
        f'--gin_file={_such_as(name)}, or --gin.{name}=VALUE'
      )
    return _resolved(macros[name], macros, (name,))

  def plain(name: str, *kinds: type) -> Any:
    got = value(name)
    if (
      isinstance(got, bool) and bool not in kinds or not isinstance(got, kinds)
    ):
      wanted = ' or '.join(
        'None' if kind is type(None) else kind.__name__ for kind in kinds
      )
      raise RecipeError(f'{name} = {got!r}: a plan needs a value, {wanted}')
    return got

  none = type(None)
  method, optimizer = value('METHOD'), value('OPTIMIZER')
  for name, got in (('METHOD', method), ('OPTIMIZER', optimizer)):
    if not isinstance(got, Reference):
      raise RecipeError(
        f'{name} = {got!r} must name one, such as @methods.dst()'
      )
  try:
    network = NetworkConfig(
      vocab_size=plain('VOCAB_SIZE', int),
      emb_dim=plain('EMB_DIM', int),
      num_heads=plain('NUM_HEADS', int),
      num_encoder_layers=plain('NUM_ENCODER_LAYERS', int),
      num_decoder_layers=plain('NUM_DECODER_LAYERS', int),
      head_dim=plain('HEAD_DIM', int),
      mlp_dim=plain('MLP_DIM', int),
      mlp_activations=plain('MLP_ACTIVATIONS', tuple, list),
      logits_via_embedding=plain('LOGITS_VIA_EMBEDDING', bool),
      dtype=plain('DTYPE', str),
    )
  except RecipeError:
    raise
  except ValueError as error:
    raise RecipeError(str(error)) from error
  lengths = plain('TASK_FEATURE_LENGTHS', dict)
  epsilon = plain('EPSILON', float, int, none)
  budget = plain('BUDGET', int, none)
  model_dir = macros.get('MODEL_DIR')
  return Recipe(
    network=network,
    method=method.name.rpartition('.')[2],
    epsilon=None if epsilon is None else float(epsilon),
    budget=budget,
    batch_size=_at_least_one('BATCH_SIZE', plain('BATCH_SIZE', int)),
    lengths={
      str(k): _at_least_one(f'TASK_FEATURE_LENGTHS[{k!r}]', v)
      for k, v in lengths.items()
    },
    num_partitions=_at_least_one(
      'NUM_PARTITIONS', plain('NUM_PARTITIONS', int)
    ),
    seed_memory_kind=plain('SEED_MEMORY_KIND', str, none),
    keep_first=plain('TRACK_OVERLAP', bool),
    optimizer=optimizer.name,
    model_dir=model_dir if isinstance(model_dir, str) else None,
  )


def complete(found: Flags) -> Flags:
  """Returns the flags with `DEFAULTS` for what their files do not bind.

  Args:
    found: see `flags`.

  Returns:
    Flags whose files say what the method, the task and the run are.

  Raises:
    RecipeError: if a file is missing or cannot be read.
  """
  bound = _macros(found)
  told_by = ('METHOD', 'MIXTURE_OR_TASK_NAME', 'T5X_OPTIMIZER')
  missing = [
    name
    for name, macro in zip(DEFAULTS, told_by, strict=True)
    if macro not in bound
  ]
  if not missing:
    return found
  # What the user gave comes last, so that it overrides.
  sizes = [name for name in found.files if name.startswith('models/')]
  rest = [name for name in found.files if name not in sizes]
  return found._replace(files=(*sizes, *missing, *rest))


def locate(name: str, search_paths: Sequence[str] = ()) -> pathlib.Path:
  """Returns where a gin file is, as gin looks for it.

  Args:
    name: path, absolute or below one of the folders.
    search_paths: folders besides the working directory and ours.

  Returns:
    Path of the file.

  Raises:
    RecipeError: if there is none; it names the nearest of ours.
  """
  folders = [pathlib.Path(), *map(pathlib.Path, search_paths)]
  for folder in (*folders, *gin_path.search_paths()):
    if (folder / name).is_file():
      return folder / name
  root = gin_path.root()
  ours = [str(path.relative_to(root)) for path in root.rglob('*.gin')]
  near = known_names.nearest(name, ours)
  raise RecipeError(
    f'there is no gin file {name!r} here, nor among ours'
    + (f'; did you mean {near[0]}?' if near else f' in {root}')
  )


class _Delegate(config_parser.ParserDelegate):
  """Keeps references as they are."""

  # The base class returns nothing, as it is there to be overridden.
  def configurable_reference(
    self, scoped_configurable_name: str, evaluate: bool
  ) -> Any:
    return Reference(scoped_configurable_name.rpartition('/')[2], evaluate)

  def macro(self, macro_name: str) -> Any:
    return _Macro(macro_name)


def _macros(found: Flags) -> dict[str, Any]:
  macros: dict[str, Any] = {}
  for name in found.files:
    _read_file(locate(name, found.search_paths), found.search_paths, macros)
  for binding in found.bindings:
    _read_text(binding, f'--gin.{binding}', found.search_paths, macros)
  return macros


def _read_file(
  path: pathlib.Path, search_paths: Sequence[str], macros: dict[str, Any]
) -> None:
  try:
    text = path.read_text()
  except (OSError, UnicodeDecodeError) as error:
    raise RecipeError(f'{path} cannot be read: {error}') from error
  _read_text(text, os.fspath(path), search_paths, macros)


def _read_text(
  text: str, origin: str, search_paths: Sequence[str], macros: dict[str, Any]
) -> None:
  parser = config_parser.ConfigParser(io.StringIO(text), _Delegate())
  try:
    for statement in parser:
      if isinstance(statement, config_parser.IncludeStatement):
        inner = locate(statement.filename, search_paths)
        _read_file(inner, search_paths, macros)
      elif isinstance(statement, config_parser.BindingStatement) and not (
        statement.arg_name or statement.scope
      ):
        macros[statement.selector] = statement.value
  except (SyntaxError, ValueError, tokenize.TokenError) as error:
    if isinstance(error, RecipeError):
      raise
    raise RecipeError(f'{origin} is not gin: {error}') from error


def _resolved(
  value: Any, macros: Mapping[str, Any], seen: tuple[str, ...]
) -> Any:
  if not isinstance(value, _Macro):
    return value
  name = value.name
  if name == 'gin.REQUIRED':
    raise RecipeError(f'{seen[-1]} is required: give --gin.{seen[-1]}=VALUE')
  if name in seen:
    raise RecipeError(f'{" → ".join((*seen, name))} never ends')
  if name not in macros:
    raise RecipeError(f'{seen[-1]} is %{name}, which nothing binds')
  return _resolved(macros[name], macros, (*seen, name))


def _at_least_one(name: str, value: Any) -> int:
  if not isinstance(value, int) or value < 1:
    raise RecipeError(f'{name} = {value!r} must be a whole number >= 1')
  return value


def _such_as(name: str) -> str:
  """Returns a file of ours that binds a macro."""
  root = gin_path.root()
  for path in sorted(root.rglob('*.gin')):
    if f'\n{name} = ' in path.read_text():
      return str(path.relative_to(root))
  return 'FILE'
