"""The command line of T5X's mains: gin files, bindings, and all other flags.

A flag is written `--name=value` or `--name value`, as absl takes it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from dst_t5x.arrays import known_names

# The flags that gin reads; `--gin.NAME=VALUE` is one more.
_GIN_FLAGS = ('gin_file', 'gin_search_paths', 'gin_bindings')
# Other flags of T5X's mains and of absl, those with a value and those without.
_VALUE_FLAGS = frozenset(
  'coordinator_address initialization_timeout log_dir logger_levels '
  'process_count process_index profile_file seqio_additional_cache_dirs '
  'shard_id stderrthreshold tfds_data_dir v verbosity'.split()
)
_BOOLEAN_FLAGS = frozenset(
  'alsologtostderr logtostderr multiprocess_gpu only_check_args pdb '
  'pdb_post_mortem run_with_pdb run_with_profiling showprefixforinfo '
  'use_cprofile_for_profiling'.split()
)


class RecipeError(ValueError):
  """Flags or gin files that cannot be read, or that say too little."""


class GinFlags(NamedTuple):
  """A command line of T5X, by what each flag is for.

  Attributes:
    files: names of gin files, in order.
    bindings: such as 'EPSILON=0.01', in order.
    search_paths: folders in which gin looks for files, besides the working
      directory and ours.
    others: words of all other flags, as they were written.
  """

  files: tuple[str, ...] = ()
  bindings: tuple[str, ...] = ()
  search_paths: tuple[str, ...] = ()
  others: tuple[str, ...] = ()


def parse(arguments: Sequence[str], *, keep_unknown: bool = False) -> GinFlags:
  """Returns what a command line gives to gin, and what it gives to T5X itself.

  Args:
    arguments: what follows `python -m t5x.train` on the command line.
    keep_unknown: whether to keep words that are no flags of T5X among `others`,
      instead of refusing them.

  Returns:
    The flags by what they are for.

  Raises:
    RecipeError: if a flag lacks its value, or a word is no flag of T5X.

  Example:
    >>> parse(['--gin_file', 'models/byte_tiny.gin', '--gin.EPSILON=0.01'])[:2]
    (('models/byte_tiny.gin',), ('EPSILON=0.01',))
  """
  files, bindings, search_paths, others = [], [], [], []
  for word in normal(arguments):
    name, equals, value = _split(word)
    if name == 'gin_file' and equals:
      files.append(value)
    elif name == 'gin_search_paths' and equals:
      search_paths += [folder for folder in value.split(',') if folder]
    elif name == 'gin_bindings' and equals:
      bindings.append(value)
    elif name.startswith('gin.') and equals:
      bindings.append(f'{name.removeprefix("gin.")}={value}')
    else:
      if not keep_unknown:
        _check_known(word)
      others.append(word)
  return GinFlags(
    tuple(files), tuple(bindings), tuple(search_paths), tuple(others)
  )


def normal(arguments: Sequence[str]) -> list[str]:
  """Returns a command line with every value behind an equals sign.

  Args:
    arguments: what follows `python -m t5x.train` on the command line.

  Returns:
    A word for each flag, in order. Words that are no flags of T5X are as they
    were written.

  Raises:
    RecipeError: if a flag lacks its value.

  Example:
    >>> normal(['--gin_file', 'a.gin', '--gin.STEPS=2', '--mine', '3'])
    ['--gin_file=a.gin', '--gin.STEPS=2', '--mine', '3']
  """
  words = []
  remaining = iter(arguments)
  for word in remaining:
    name, equals, _ = _split(word)
    needs_value = (
      name in _GIN_FLAGS or name in _VALUE_FLAGS or name.startswith('gin.')
    )
    if needs_value and not equals:
      value = next(remaining, None)
      # A single dash may begin a negative number.
      if value is None or value.startswith('--'):
        raise RecipeError(
          f"--{name} lacks its value: '--{name}' must be followed by =VALUE"
        )
      word = f'{word}={value}'
    words.append(word)
  return words


def _split(word: str) -> tuple[str, str, str]:
  """Returns a flag's name, its equals sign and its value; no name if none."""
  if not word.startswith('-'):
    return '', '', ''
  return word.lstrip('-').partition('=')


def _check_known(word: str) -> None:
  """Raises if a word is no flag of T5X's mains or of absl."""
  if not word.startswith('-'):
    raise RecipeError(
      f'{word!r} is no flag of T5X: write --gin_file=FILE or --gin.NAME=VALUE'
    )
  name = _split(word)[0]
  known = _VALUE_FLAGS | _BOOLEAN_FLAGS
  if name in known or name.removeprefix('no') in _BOOLEAN_FLAGS:
    return
  nearest = known_names.nearest(name, (*sorted(known), *_GIN_FLAGS, 'gin.'))
  raise RecipeError(
    f'T5X has no flag {word!r}'
    + (f'; did you mean --{nearest[0]}?' if nearest else '')
  )
