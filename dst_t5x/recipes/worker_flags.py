"""What a launcher must know of T5X's flags before other machines get them.

Other machines, the workers, have this package and T5X, but not the user's
files. A worker runs in a folder that receives copies of those files, each under
the name by which a flag or an `include` names it.
"""

import pathlib
from collections.abc import Sequence

from dst_t5x.recipes import gin_files, gin_flags, gin_path, macros
from dst_t5x.recipes.gin_flags import RecipeError

# The macro that says where a main of T5X writes.
OUTPUT_MACROS = {
  'train': 'MODEL_DIR',
  'eval': 'EVAL_OUTPUT_DIR',
  'infer': 'INFER_OUTPUT_DIR',
}


def output_folder(main: str, arguments: Sequence[str]) -> str | None:
  """Returns the folder that a main of T5X writes to.

  Args:
    main: 'train', 'eval' or 'infer'.
    arguments: T5X's command line.

  Returns:
    The folder; None if neither a binding nor a gin file, included ones too,
    binds the main's macro to a string. Files are only read if no binding does.

  Raises:
    RecipeError: if a flag lacks its value, or a file is missing or cannot be
      read.

  Example:
    >>> output_folder('train', ["--gin.MODEL_DIR='gs://bucket/run'"])
    'gs://bucket/run'
  """
  name = OUTPUT_MACROS[main]
  flags = gin_flags.parse(arguments, keep_unknown=True)
  # Bindings come last in gin, so that no file can change what they say.
  folder = macros.string(name, macros.read(flags._replace(files=())))
  return folder or macros.string(name, macros.read(flags))


def files_to_copy(arguments: Sequence[str]) -> list[gin_files.GinFile]:
  """Returns the user's gin files, which workers do not have.

  Args:
    arguments: T5X's command line.

  Returns:
    Every file of the user's that gin reads, included ones too. A copy of
    `path` under `name`, in a worker's working directory, is found there as it
    is here.

  Raises:
    RecipeError: if a flag lacks its value, a file is missing or cannot be
      read, or a file's name cannot be that of a copy.

  Example:
    >>> files_to_copy(['--gin_file=models/byte_tiny.gin'])
    []
  """
  flags = gin_flags.parse(arguments, keep_unknown=True)
  files = [file for file in gin_files.read(flags).files if not file.installed]
  for file in files:
    check_below(file.name)
  return files


def check_below(name: str) -> None:
  """Refuses a file that cannot be copied under its own name.

  Args:
    name: path of the file, as it is named on this machine.

  Raises:
    RecipeError: if it is absolute or leads out of the working directory.

  Example:
    >>> check_below('recipes/mine.gin')
  """
  if not _is_below(name):
    raise RecipeError(
      f'{name} lies outside the working directory, and workers find a file '
      'only by a path relative to it: copy the file here, or start from there'
    )


def for_workers(arguments: Sequence[str]) -> list[str]:
  """Returns T5X's command line for workers.

  A worker gives gin its own folders: its working directory, with the copies of
  `files_to_copy`, and those of this package and of T5X.

  Args:
    arguments: T5X's command line on this machine.

  Returns:
    The flags but `--gin_search_paths`, each as one word; those that T5X does
    not know are as they were written.

  Raises:
    RecipeError: if a flag lacks its value, or a search path leads out of the
      working directory to what workers do not have.

  Example:
    >>> for_workers(['--gin.STEPS', '2', '--gin_search_paths=mine'])
    ['--gin.STEPS=2']
  """
  installed = {str(path) for path in gin_path.search_paths()}
  flags = gin_flags.parse(arguments, keep_unknown=True)
  for folder in flags.search_paths:
    if folder not in installed and not _is_below(folder):
      raise RecipeError(
        f'--gin_search_paths names {folder}, which workers do not have: give '
        'the files by paths relative to the working directory'
      )
  return [
    word
    for word in gin_flags.normal(arguments)
    if not word.lstrip('-').startswith('gin_search_paths=')
  ]


def _is_below(name: str) -> bool:
  path = pathlib.PurePath(name)
  return not path.is_absolute() and '..' not in path.parts
