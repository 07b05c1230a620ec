"""Values of macros that gin files and bindings bind, found without gin.

Only plain values can be known, such as numbers, strings and dictionaries; what
begins with '@' stays a `Reference`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from gin import config_parser

from dst_t5x.recipes import gin_files
from dst_t5x.recipes.gin_files import Macro
from dst_t5x.recipes.gin_flags import GinFlags, RecipeError


def read(flags: GinFlags) -> dict[str, Any]:
  """Returns what the gin files and bindings of a run bind macros to.

  Args:
    flags: files, bindings and search paths; see `gin_flags.parse`.

  Returns:
    Values by macro, as they are written; the last binding counts, as in gin.
    `value` follows a macro whose value is another macro.

  Raises:
    RecipeError: if a file is missing or cannot be read.

  Example:
    >>> read(GinFlags(bindings=('STEPS=2', 'STEPS=3', 'ROWS=%STEPS')))
    {'STEPS': 3, 'ROWS': Macro(name='STEPS')}
  """
  return bound(gin_files.read(flags).statements)


def bound(statements: Iterable[Any]) -> dict[str, Any]:
  """Returns what statements bind macros to, the last binding of each.

  Args:
    statements: see `gin_files.Contents`.

  Returns:
    Values by macro, as they are written; macros within a scope are left out.
  """
  return {
    statement.selector: statement.value
    for statement in statements
    if isinstance(statement, config_parser.BindingStatement)
    and not (statement.arg_name or statement.scope)
  }


def bound_by_user(flags: GinFlags) -> dict[str, Any]:
  """Returns what the user binds macros to, apart from what our files bind.

  Args:
    flags: files, bindings and search paths; see `gin_flags.parse`.

  Returns:
    As `read`, but only from bindings and from files that came neither with
    this package nor with T5X.

  Raises:
    RecipeError: if a file is missing or cannot be read.

  Example:
    >>> bound_by_user(GinFlags(('runs/finetune_t5x.gin',), ('STEPS=2',)))
    {'STEPS': 2}
  """
  contents = gin_files.read(flags)
  installed = {str(file.path) for file in contents.files if file.installed}
  return bound(
    statement
    for statement in contents.statements
    if statement.location.filename not in installed
  )


def mentioned(flags: GinFlags) -> frozenset[str]:
  """Returns the macros that the gin files of a run bind or use.

  Gin takes a binding of any other macro, and nothing comes of it.

  Args:
    flags: files and search paths; the macros that the bindings alone name are
      not among the result.

  Returns:
    Names of macros.

  Raises:
    RecipeError: if a file is missing or cannot be read.

  Example:
    >>> sorted(mentioned(GinFlags(('methods/id3.gin',))))
    ['METHOD']
  """
  names: set[str] = set()
  for statement in gin_files.read(flags._replace(bindings=())).statements:
    if isinstance(statement, config_parser.BindingStatement):
      if not statement.arg_name:
        names.add(statement.selector)
      names |= _used(statement.value)
  return frozenset(names)


def value(name: str, macros: Mapping[str, Any]) -> Any:
  """Returns the value of a macro, with the macros in it followed.

  Args:
    name: of a macro that is bound.
    macros: see `read`.

  Returns:
    The value, in which no `Macro` is left.

  Raises:
    RecipeError: if the value names a macro that nothing binds, that is
      required, or that leads back to itself.

  Example:
    >>> value('ROWS', {'STEPS': 3, 'ROWS': Macro('STEPS')})
    3
  """
  return _resolved(macros[name], macros, (name,))


def string(name: str, macros: Mapping[str, Any]) -> str | None:
  """Returns the value of a macro if it is known to be a string.

  Args:
    name: of a macro that may be bound.
    macros: see `read`.

  Returns:
    The string; None if nothing binds the macro, or its value is no string, or
    it remains open, as that of a required macro.

  Example:
    >>> string('MODEL_DIR', {'MODEL_DIR': Macro('gin.REQUIRED')}) is None
    True
  """
  if name not in macros:
    return None
  try:
    bound_to = value(name, macros)
  except RecipeError:
    return None
  return bound_to if isinstance(bound_to, str) else None


def _resolved(
  written: Any, macros: Mapping[str, Any], passed: tuple[str, ...]
) -> Any:
  """Returns a value without macros; `passed` are those that led to it."""
  if isinstance(written, Macro):
    name = written.name
    if name == 'gin.REQUIRED':
      raise RecipeError(
        f'{passed[-1]} is required: give --gin.{passed[-1]}=VALUE'
      )
    if name in passed:
      raise RecipeError(f'{" → ".join((*passed, name))} never ends')
    if name not in macros:
      raise RecipeError(f'{passed[-1]} is %{name}, which nothing binds')
    return _resolved(macros[name], macros, (*passed, name))
  if isinstance(written, dict):
    return {
      key: _resolved(item, macros, passed) for key, item in written.items()
    }
  if type(written) in (list, tuple):
    return type(written)(_resolved(item, macros, passed) for item in written)
  return written


def _used(written: Any) -> set[str]:
  """Returns the macros in a value."""
  if isinstance(written, Macro):
    return {written.name}
  if isinstance(written, dict):
    return _used([*written.keys(), *written.values()])
  if type(written) in (list, tuple):
    return set().union(*map(_used, written))
  return set()
