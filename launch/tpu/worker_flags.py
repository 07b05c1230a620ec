"""T5X's flags: the files that they name, and what workers get of them."""

import ast
import pathlib
import re
from collections.abc import Iterator, Sequence

from dst_t5x.recipes import gin_path

# The macro that says where a main writes.
OUTPUTS = {
  'train': 'MODEL_DIR',
  'eval': 'EVAL_OUTPUT_DIR',
  'infer': 'INFER_OUTPUT_DIR',
}
_TAKES_VALUE = re.compile(
  r'--?(gin\.[^=]+|gin_file|gin_search_paths|gin_bindings)'
)


def normal(flags: Sequence[str]) -> list[str]:
  """Returns flags with every value after an equals sign.

  Args:
    flags: as on T5X's command line.

  Returns:
    As many or fewer words that mean the same.

  Raises:
    ValueError: if a flag lacks its value.

  Example:
    >>> normal(['--gin_file', 'a.gin', '--gin.STEPS=2'])
    ['--gin_file=a.gin', '--gin.STEPS=2']
  """
  words = iter(flags)
  result = []
  for word in words:
    if _TAKES_VALUE.fullmatch(word):
      value = next(words, None)
      if value is None:
        raise ValueError(f'flag {word} lacks its value')
      word = f'{word}={value}'
    result.append(word)
  return result


def values(flags: Sequence[str], name: str) -> Iterator[str]:
  """Yields the values of a flag in order.

  Args:
    flags: as on T5X's command line.
    name: such as 'gin_file'.

  Yields:
    Its values.

  Raises:
    ValueError: if a flag lacks its value.

  Example:
    >>> list(values(['--gin_file=a.gin', '--gin_file', 'b.gin'], 'gin_file'))
    ['a.gin', 'b.gin']
  """
  for word in normal(flags):
    found, equals, value = word.lstrip('-').partition('=')
    if equals and found == name:
      yield value


def output(main: str, flags: Sequence[str]) -> str | None:
  """Returns the folder that a main writes to.

  Args:
    main: 'train', 'eval' or 'infer'.
    flags: for it.

  Returns:
    The folder; None if neither the flags nor the gin files of this directory
    bind it to a string.

  Raises:
    ValueError: if a flag lacks its value.

  Example:
    >>> output('train', ["--gin.MODEL_DIR='gs://bucket/run'"])
    'gs://bucket/run'
  """
  name = OUTPUTS[main]
  bound = list(values(flags, f'gin.{name}'))
  for binding in values(flags, 'gin_bindings'):
    bound += re.findall(rf'^\s*{name}\s*=\s*(.+)$', binding)
  if not bound:
    for file in local_files(flags):
      text = pathlib.Path(file).read_text('utf-8')
      bound += re.findall(rf'^{name}\s*=\s*(.+)$', text, re.M)
  if not bound:
    return None
  try:
    value = ast.literal_eval(bound[-1].strip())
  except (ValueError, SyntaxError):
    return None
  return value if isinstance(value, str) else None


def check_output(main: str, flags: Sequence[str], *, allow_local: bool) -> None:
  """Refuses a main whose work would die with the TPU.

  Args:
    main: 'train', 'eval' or 'infer'.
    flags: for it.
    allow_local: take any folder.

  Raises:
    ValueError: if the folder is not in a bucket.
  """
  folder = output(main, flags)
  if allow_local or (folder or '').startswith('gs://'):
    return
  name = OUTPUTS[main]
  said = f'{name} is {folder!r}' if folder else f'no flag binds {name}'
  raise ValueError(
    f"{said}: give --gin.{name}=\"'gs://BUCKET/FOLDER'\", because a worker's "
    'own disk is deleted with the TPU, also by a preemption; or '
    '--allow-local-model-dir if that is meant'
  )


def local_files(flags: Sequence[str]) -> list[str]:
  """Returns the gin files that only this machine has.

  Args:
    flags: as on T5X's command line.

  Returns:
    Paths below the working directory. The package's and T5X's own files,
    which workers have too, are not among them.

  Raises:
    ValueError: if a file lies elsewhere, where no relative path leads to.
  """
  found = []
  for name in values(flags, 'gin_file'):
    if pathlib.Path(name).is_file():
      check_below(name)
      found.append(name)
  return list(dict.fromkeys(found))


def check_below(name: str) -> None:
  """Refuses a file that cannot be copied under its own name.

  Args:
    name: path of the file.

  Raises:
    ValueError: if it is absolute or leaves the working directory.

  Example:
    >>> check_below('recipes/mine.gin')
  """
  path = pathlib.PurePath(name)
  if path.is_absolute() or '..' in path.parts:
    raise ValueError(
      f'{name} lies outside the working directory, and workers find a file '
      'only by a path relative to it: copy the file here, or start from there'
    )


def for_workers(flags: Sequence[str]) -> list[str]:
  """Returns the flags without this machine's gin folders.

  Each worker names its own folders: the copied recipe, the package's gin files
  and T5X's.

  Args:
    flags: as the user gave them.

  Returns:
    Flags for T5X's main.

  Raises:
    ValueError: if a folder is named that workers do not have.

  Example:
    >>> for_workers(['--gin.STEPS=2'])
    ['--gin.STEPS=2']
  """
  known = {str(path) for path in gin_path.search_paths()} | {'.', ''}
  for value in values(flags, 'gin_search_paths'):
    for folder in value.split(','):
      if folder not in known:
        raise ValueError(
          f'--gin_search_paths names {folder}, which workers do not have: give '
          'the files by paths relative to the working directory'
        )
  return [
    word
    for word in normal(flags)
    if not word.lstrip('-').startswith('gin_search_paths=')
  ]
