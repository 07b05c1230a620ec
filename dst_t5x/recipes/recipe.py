"""What T5X's flags say of a run, as far as a plan needs it; nothing is run."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.recipes import gin_path, macros
from dst_t5x.recipes.gin_files import Reference
from dst_t5x.recipes.gin_flags import GinFlags, RecipeError

# Files for what a recipe leaves open, each with a macro that tells, where it is
# bound, that the recipe says it itself.
DEFAULT_FILES = {
  'methods/dst.gin': 'METHOD',
  'tasks/super_glue.gin': 'MIXTURE_OR_TASK_NAME',
  'runs/finetune_t5x.gin': 'T5X_OPTIMIZER',
}
_NONE = type(None)


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


def read(flags: GinFlags) -> Recipe:
  """Returns what the gin files and bindings of a run say.

  Args:
    flags: see `gin_flags.parse`. Files that leave the method, the task or the
      run open are completed by `DEFAULT_FILES`.

  Returns:
    The recipe.

  Raises:
    RecipeError: if a file is missing or cannot be read, or a macro that a plan
      needs is not bound to a plain value.

  Example:
    >>> recipe = read(GinFlags(('models/byte_tiny.gin',), ('EPSILON=0.01',)))
    >>> recipe.method, recipe.batch_size, recipe.network.emb_dim
    ('dst', 128, 96)
  """
  bound = macros.read(complete(flags))
  epsilon = _plain(bound, 'EPSILON', float, int, _NONE)
  lengths = _plain(bound, 'TASK_FEATURE_LENGTHS', dict)
  return Recipe(
    network=_network(bound),
    method=_reference(bound, 'METHOD').rpartition('.')[2],
    epsilon=None if epsilon is None else float(epsilon),
    budget=_plain(bound, 'BUDGET', int, _NONE),
    batch_size=_count(bound, 'BATCH_SIZE'),
    lengths={
      str(feature): _at_least_one(f'TASK_FEATURE_LENGTHS[{feature!r}]', length)
      for feature, length in lengths.items()
    },
    num_partitions=_count(bound, 'NUM_PARTITIONS'),
    seed_memory_kind=_plain(bound, 'SEED_MEMORY_KIND', str, _NONE),
    keep_first=bool(_plain(bound, 'TRACK_OVERLAP', bool, _NONE)),
    optimizer=_reference(bound, 'OPTIMIZER'),
    model_dir=macros.string('MODEL_DIR', bound),
  )


def complete(flags: GinFlags) -> GinFlags:
  """Returns the flags with `DEFAULT_FILES` for what their files leave open.

  Args:
    flags: see `gin_flags.parse`.

  Returns:
    Flags whose files say what the method, the task and the run are. What the
    user gave comes last, so that it overrides; only files of `models/` come
    first.

  Raises:
    RecipeError: if a file is missing or cannot be read.

  Example:
    >>> complete(GinFlags(('models/byte_tiny.gin', 'methods/id3.gin'))).files[1]
    'tasks/super_glue.gin'
  """
  bound = macros.read(flags)
  missing = [
    file for file, macro in DEFAULT_FILES.items() if macro not in bound
  ]
  if not missing:
    return flags
  sizes = [name for name in flags.files if name.startswith('models/')]
  rest = [name for name in flags.files if name not in sizes]
  return flags._replace(files=(*sizes, *missing, *rest))


def _network(bound: Mapping[str, Any]) -> NetworkConfig:
  sizes = {
    macro.lower(): _plain(bound, macro, int)
    for macro in (
      'VOCAB_SIZE',
      'EMB_DIM',
      'NUM_HEADS',
      'NUM_ENCODER_LAYERS',
      'NUM_DECODER_LAYERS',
      'HEAD_DIM',
      'MLP_DIM',
    )
  }
  activations = _plain(bound, 'MLP_ACTIVATIONS', tuple, list)
  via_embedding = _plain(bound, 'LOGITS_VIA_EMBEDDING', bool)
  dtype = _plain(bound, 'DTYPE', str)
  try:
    return NetworkConfig(
      **sizes,
      mlp_activations=activations,
      logits_via_embedding=via_embedding,
      dtype=dtype,
    )
  except ValueError as error:
    raise RecipeError(str(error)) from error


def _value(bound: Mapping[str, Any], name: str) -> Any:
  if name not in bound:
    raise RecipeError(
      f'the recipe does not bind {name}: give a gin file that does, such as '
      f'--gin_file={_file_that_binds(name)}, or --gin.{name}=VALUE'
    )
  return macros.value(name, bound)


def _plain(bound: Mapping[str, Any], name: str, *kinds: type) -> Any:
  """Returns a macro's value, which must be of one of the kinds."""
  value = _value(bound, name)
  # In Python, True is an int, too.
  misplaced_bool = isinstance(value, bool) and bool not in kinds
  if misplaced_bool or not isinstance(value, kinds):
    wanted = ' or '.join(
      'None' if kind is _NONE else kind.__name__ for kind in kinds
    )
    raise RecipeError(f'{name} = {value!r}: a plan needs a value, {wanted}')
  return value


def _count(bound: Mapping[str, Any], name: str) -> int:
  return _at_least_one(name, _plain(bound, name, int))


def _at_least_one(name: str, value: Any) -> int:
  if not isinstance(value, int) or value < 1:
    raise RecipeError(f'{name} = {value!r} must be a whole number >= 1')
  return value


def _reference(bound: Mapping[str, Any], name: str) -> str:
  value = _value(bound, name)
  if not isinstance(value, Reference):
    raise RecipeError(
      f'{name} = {value!r} must name one, such as @methods.dst()'
    )
  return value.name


def _file_that_binds(macro: str) -> str:
  """Returns the name of one of our gin files that binds a macro."""
  root = gin_path.root()
  for path in sorted(root.rglob('*.gin')):
    if f'\n{macro} = ' in path.read_text('utf-8'):
      return str(path.relative_to(root))
  return 'FILE'
