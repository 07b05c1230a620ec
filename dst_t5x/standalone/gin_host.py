"""From gin files to a run of the standalone runner."""

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import gin

from dst_t5x.arrays import known_names
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.network.size_macros import SIZE_MACROS, network_from_macros
from dst_t5x.recipes import gin_flags, gin_path, macros
from dst_t5x.standalone.settings import TrainSettings


class GinError(ValueError):
  """A gin file or binding is wrong."""


class GinRun(NamedTuple):
  """What `hosts/standalone.gin` binds.

  Attributes:
    settings: what the run does.
    initial_checkpoint_path: location of the seed.
    model_dir: the run's directory.
  """

  settings: TrainSettings
  initial_checkpoint_path: str
  model_dir: str


def parse(
  files: Sequence[str],
  bindings: Sequence[str],
  *,
  search_paths: Sequence[str] = (),
) -> tuple[GinRun, NetworkConfig | None]:
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
      _check_bindings(files, bindings, search_paths)
      gin.parse_config(list(bindings))
    run = gin.get_configurable(GinRun)()
  except OSError as error:
    raise GinError(
      f'{error}; our own files are found by names such as methods/dst.gin, '
      'see dst-t5x gin-path'
    ) from error
  except (ValueError, TypeError, RuntimeError, SyntaxError) as error:
    if isinstance(error, GinError):
      raise
    raise GinError(_first_lines(str(error))) from error
  _check_required(run)
  return run, _network()


def _check_required(run: GinRun) -> None:
  fields = {**run.settings._asdict(), **run._asdict()}
  unbound = [name for name, value in fields.items() if value is gin.REQUIRED]
  if unbound:
    raise GinError(
      f'required but not bound: {", ".join(unbound)}; bind the macro of that '
      'name, such as --gin.MODEL_DIR="\'RUN\'" (hosts/standalone.gin lists '
      'them)'
    )


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


def _check_bindings(
  files: Sequence[str], bindings: Sequence[str], search_paths: Sequence[str]
) -> None:
  """Raises if a binding names a macro that nothing knows.

  Gin accepts any macro and, if nothing reads it, does nothing with it.
  """
  flags = gin_flags.GinFlags(tuple(files), (), tuple(search_paths))
  known = {*macros.mentioned(flags), *SIZE_MACROS}
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
  """Returns the network that the parsed files describe, None if they do not."""
  values = {}
  for macro in SIZE_MACROS:
    with contextlib.suppress(ValueError):  # gin's, if it is not bound
      values[macro] = gin.query_parameter(f'{macro}/gin.macro.value')
  if not values:
    return None
  try:
    return network_from_macros(values)
  except ValueError as error:
    raise GinError(str(error)) from error


def _first_lines(text: str) -> str:
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  return ' '.join(lines[:6])
