"""Where a checkpoint is written, and what may be written there."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dst_t5x.arrays import fingerprints, paths
from dst_t5x.seeds import folders
from dst_t5x.seeds.errors import SeedError


def local(path: str | os.PathLike[str]) -> pathlib.Path:
  """Returns a path to write to.

  Args:
    path: of the user.

  Returns:
    The path.

  Raises:
    SeedError: if it is a URL, or something is there already.

  Example:
    >>> local('gs://bucket/t5')
    Traceback (most recent call last):
    ...
    dst_t5x.seeds.errors.SeedError: gs://bucket/t5: seeds are written \
to this machine only; write to a local path and copy it
  """
  location = os.fspath(path)
  if folders.is_remote(location):
    raise SeedError(
      f'{location}: seeds are written to this machine only; write to a local '
      'path and copy it'
    )
  found = pathlib.Path(location)
  if found.is_file() or (found.is_dir() and any(found.iterdir())):
    raise SeedError(f'{location} exists already; name another place')
  return found


def checkpoint(
  path: str | os.PathLike[str], step: int | None
) -> tuple[pathlib.Path, int]:
  """Returns the folder and the step of a checkpoint that T5X can find.

  T5X takes the step from the folder's name, `checkpoint_<step>`.

  Args:
    path: such a folder, or the one to make it in, which may hold others.
    step: None for the step in the name, or 0.

  Returns:
    The checkpoint's folder, and its step.

  Raises:
    SeedError: if the name has another step, or the checkpoint is there
      already, or it cannot be written there.

  Example:
    >>> checkpoint('run', 1000)
    (PosixPath('run/checkpoint_1000'), 1000)
  """
  prefix, _, number = pathlib.Path(path).name.rpartition('_')
  if prefix == 'checkpoint' and number.isascii() and number.isdigit():
    if step is not None and step != int(number):
      raise SeedError(
        f'{os.fspath(path)}: the name says step {int(number)}, and the step is '
        f'{step}; T5X needs both to be the same'
      )
    return local(path), int(number)
  step = 0 if step is None else step
  location = os.fspath(path)
  if os.path.isfile(location):
    raise SeedError(f'{location} exists already and is a file')
  folder = location if location.endswith('/') else f'{location}/'
  return local(f'{folder}checkpoint_{step}'), step


def leaves(params: Mapping[str, Any], path: Any) -> dict[str, np.ndarray]:
  """Returns parameters by path, on the host.

  Args:
    params: nested dict of NumPy or JAX arrays.
    path: of what is written, for errors.

  Returns:
    Arrays by path, sorted.

  Raises:
    SeedError: if there are none, or one cannot be stored.

  Example:
    >>> leaves({'a': {'b': np.ones(1)}}, 'out')
    {'a/b': array([1.])}
  """
  try:
    flat = {
      name: fingerprints.to_host(leaf, name)
      for name, leaf in paths.flatten(params).items()
    }
  except ValueError as error:
    raise SeedError(f'{path}: cannot be written: {error}') from error
  if not flat:
    raise SeedError(f'{path}: there are no parameters to write')
  return flat
