"""Where libtpu is, the compiler for TPUs, and which version of it.

JAX takes a machine where libtpu is installed for one with a TPU, and then
fails or waits. So libtpu may lie in a folder of its own, which only the process
that compiles gets to see.
"""

import importlib.metadata
import importlib.util
import os
import pathlib
import sys
from typing import NamedTuple

# Names a folder that holds libtpu.
VARIABLE = 'DST_T5X_LIBTPU'


class TPUCompiler(NamedTuple):
  """A libtpu that can be used.

  Attributes:
    folder: what to put into `PYTHONPATH`; None where Python finds it anyway.
    version: such as '0.0.42.1'.
  """

  folder: str | None
  version: str


def find(folder: str | os.PathLike[str] | None = None) -> TPUCompiler | None:
  """Returns the libtpu of a folder, or else the one that is installed.

  Args:
    folder: into which `pip install --target` put libtpu; by default what the
      environment variable DST_T5X_LIBTPU says.

  Returns:
    None if no folder is named and none is installed.

  Raises:
    ValueError: if the folder that is named holds no libtpu.
  """
  named_by = '--libtpu'
  if folder is None:
    named_by, folder = VARIABLE, os.environ.get(VARIABLE) or None
  if folder is not None:
    path = pathlib.Path(folder).resolve()
    version = _version(path)
    if version is None or not (path / 'libtpu' / 'libtpu.so').is_file():
      raise ValueError(
        f'{named_by} names {str(folder)!r}, which holds no libtpu: {install()}'
      )
    return TPUCompiler(str(path), version)
  if importlib.util.find_spec('libtpu') is None:
    return None
  return TPUCompiler(None, _version() or 'of unknown version')


def install() -> str:
  """Returns how libtpu is installed so that nothing else finds it.

  Returns:
    A clause with a command; the version is the one that JAX asks for.

  Example:
    >>> install().split(' --target ')[0]
    'pip install --no-deps'
  """
  return (
    f"pip install --no-deps --target FOLDER '{_requirement()}', then --libtpu "
    f'FOLDER or {VARIABLE}=FOLDER; installed beside JAX, it would make JAX '
    'take this machine for one with a TPU'
  )


def _requirement() -> str:
  """Returns what JAX's extra `tpu` says of libtpu."""
  for line in importlib.metadata.requires('jax') or ():
    requirement = line.partition(';')[0].strip()
    if requirement.startswith('libtpu'):
      return requirement
  return 'libtpu'


def _version(folder: pathlib.Path | None = None) -> str | None:
  path = sys.path if folder is None else [str(folder)]
  for package in importlib.metadata.distributions(name='libtpu', path=path):
    return package.version
  return None
