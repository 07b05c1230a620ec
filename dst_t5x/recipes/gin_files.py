"""Gin files: where a name is found, and all that a run reads.

Files are read with gin's own parser but without gin: nothing that a file names
is imported, so that neither T5X nor a user's modules need be installed.
"""

import io
import os
import pathlib
import tokenize
from collections.abc import Sequence
from typing import Any, NamedTuple

from gin import config_parser

from dst_t5x.arrays import known_names
from dst_t5x.recipes import gin_path
from dst_t5x.recipes.gin_flags import GinFlags, RecipeError


class GinFile(NamedTuple):
  """A gin file that a run reads.

  Attributes:
    name: as a flag or another file's `include` writes it.
    path: where the file lies on this machine.
    installed: whether it comes with this package or with T5X, so that it is
      found under the same name wherever they are installed. Otherwise it is
      the user's.
  """

  name: str
  path: pathlib.Path
  installed: bool


class Contents(NamedTuple):
  """All that gin reads for a run.

  Attributes:
    files: every file, the included ones too, each once, in gin's order.
    statements: the parser's statements of all files, then of the bindings, in
      gin's order. The statements of an included file stand in the place of
      the `include`. `location.filename` is the path of a statement's file.
  """

  files: tuple[GinFile, ...]
  statements: tuple[Any, ...]


class Reference(NamedTuple):
  """A value that names a function or class, to be called or handed over.

  Attributes:
    name: as in gin, without '@' and scopes.
    called: whether '()' follows the name.
  """

  name: str
  called: bool


class Macro(NamedTuple):
  """A value that stands for the value of a macro.

  Attributes:
    name: as in gin, without '%'.
  """

  name: str


def read(flags: GinFlags) -> Contents:
  """Returns the files and statements that gin reads for a run.

  Args:
    flags: files, bindings and search paths of the run; see `gin_flags.parse`.

  Returns:
    Files and statements. In a statement's value, `Reference` and `Macro` stand
    for what begins with '@' and '%'.

  Raises:
    RecipeError: if a file is missing, cannot be read, is not gin, or includes
      itself.

  Example:
    >>> contents = read(GinFlags(('methods/dst.gin',), ('EPSILON=0.01',)))
    >>> contents.files[0].name, contents.statements[-1].value
    ('methods/dst.gin', 0.01)
  """
  reader = _Reader(flags.search_paths)
  for name in flags.files:
    reader.read_file(name)
  for binding in flags.bindings:
    reader.read_text(binding, origin=f'--gin.{binding}')
  return Contents(tuple(dict.fromkeys(reader.files)), tuple(reader.statements))


def locate(name: str, search_paths: Sequence[str] = ()) -> GinFile:
  """Returns the file that gin finds under a name.

  Gin looks in the working directory, then in the search paths, then among the
  files of this package and of T5X.

  Args:
    name: absolute path, or path below one of these folders.
    search_paths: folders that `--gin_search_paths` names.

  Returns:
    The file.

  Raises:
    RecipeError: if there is none; it offers the nearest name of our own files.

  Example:
    >>> locate('methods/dst.gin').path.name
    'dst.gin'
  """
  # What the user names comes first, also for gin.
  for folder in ('', *search_paths):
    path = pathlib.Path(folder, name)
    if path.is_file():
      return GinFile(name, path, _is_installed(name, folder))
  for folder in gin_path.search_paths():
    if (folder / name).is_file():
      return GinFile(name, folder / name, _is_installed(name, folder))
  root = gin_path.root()
  our_names = [str(path.relative_to(root)) for path in root.rglob('*.gin')]
  nearest = known_names.nearest(name, our_names)
  raise RecipeError(
    f'there is no gin file {name!r} here, nor among ours'
    + (f'; did you mean {nearest[0]}?' if nearest else f' in {root}')
  )


def _is_installed(name: str, folder: str | os.PathLike[str]) -> bool:
  """Whether another machine finds the file, under this name, as we do."""
  if pathlib.Path(name).is_absolute() or not os.fspath(folder):
    return False
  if pathlib.Path(folder).resolve() == gin_path.root():
    return True
  # T5X's folder may hold other packages, which other machines lack.
  return (
    pathlib.Path(folder).resolve() == gin_path.t5x_root()
    and pathlib.PurePath(name).parts[0] == 't5x'
  )


class _Delegate(config_parser.ParserDelegate):
  """Keeps references and macros as they are written."""

  # The base class returns nothing, as it is there to be overridden.
  def configurable_reference(
    self, scoped_configurable_name: str, evaluate: bool
  ) -> Any:
    return Reference(scoped_configurable_name.rpartition('/')[2], evaluate)

  def macro(self, macro_name: str) -> Any:
    return Macro(macro_name)


class _Reader:
  """Collects files and statements in gin's order."""

  def __init__(self, search_paths: Sequence[str]) -> None:
    self.files: list[GinFile] = []
    self.statements: list[Any] = []
    self._search_paths = search_paths
    self._open: list[pathlib.Path] = []  # The includes that led here.

  def read_file(self, name: str) -> None:
    file = locate(name, self._search_paths)
    resolved = file.path.resolve()
    if resolved in self._open:
      raise RecipeError(f'{file.path} includes itself')
    try:
      text = file.path.read_text('utf-8')
    except (OSError, UnicodeDecodeError) as error:
      raise RecipeError(f'{file.path} cannot be read: {error}') from error
    self.files.append(file)
    self._open.append(resolved)
    self.read_text(text, origin=str(file.path))
    self._open.pop()

  def read_text(self, text: str, *, origin: str) -> None:
    lines = io.StringIO(text)
    # Read by the parser, and kept in the location of each statement.
    lines.name = origin  # type: ignore
    parser = config_parser.ConfigParser(lines, _Delegate())
    try:
      for statement in parser:
        if isinstance(statement, config_parser.IncludeStatement):
          self.read_file(statement.filename)
        else:
          self.statements.append(statement)
    except RecipeError:
      raise
    except (SyntaxError, ValueError, tokenize.TokenError) as error:
      name, _, value = text.partition('=')
      hint = ''
      if origin.startswith('--gin.') and value.strip()[:1].isalpha():
        hint = (
          f'; a string needs its quotes, which a shell takes away: '
          f'--gin.{name.strip()}="\'{value.strip()}\'"'
        )
      raise RecipeError(f'{origin} is not gin: {error}{hint}') from error
