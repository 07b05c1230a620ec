"""The places that seeds are written to: checked before anything is written."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dst_t5x.arrays import fingerprints, paths
from dst_t5x.seeds import folders
from dst_t5x.seeds.errors import SeedError


def free_path(path: str | os.PathLike[str]) -> pathlib.Path:
  """Returns a path of this machine at which nothing lies yet.

  Args:
    path: as the user gave it; an empty folder counts as nothing.

  Returns:
    The path.

  Raises:
    SeedError: if it is a URL, or something is there already.

  Example:
    >>> free_path('gs://bucket/t5')
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
  target = pathlib.Path(location)
  if target.is_file() or (target.is_dir() and any(target.iterdir())):
    raise SeedError(f'{location} exists already; name another place')
  return target


def seed_file(path: str | os.PathLike[str], *, overwrite: bool = False) -> str:
  """Returns the path of a file that a seed can be written to.

  Args:
    path: the file, ending in .safetensors.
    overwrite: whether something may be there already.

  Returns:
    The path.

  Raises:
    SeedError: if the name has another ending, or, unless it may be
      overwritten, the path is a URL or something is there already.

  Example:
    >>> seed_file('seed.safetensors')
    'seed.safetensors'
  """
  location = os.fspath(path)
  if not location.endswith('.safetensors'):
    raise SeedError(f'{location}: the name of a seed must end in .safetensors')
  if not overwrite:
    free_path(path)
  return location


def checkpoint_folder(
  path: str | os.PathLike[str], step: int | None
) -> tuple[pathlib.Path, int]:
  """Returns the folder and the step of a checkpoint that T5X can find.

  T5X takes the step from the folder's name, `checkpoint_<step>`.

  Args:
    path: such a folder, or the one to make it in, which may hold others.
    step: step of the checkpoint; None for the step in the name, or 0.

  Returns:
    The checkpoint's folder, and its step.

  Raises:
    SeedError: if the name has another step, or the checkpoint is there
      already, or it cannot be written there.

  Example:
    >>> checkpoint_folder('run', 1000)
    (PosixPath('run/checkpoint_1000'), 1000)
  """
  step_in_name = folders.step_of(pathlib.Path(path).name)
  if step_in_name is not None:
    if step is not None and step != step_in_name:
      raise SeedError(
        f'{os.fspath(path)}: the name says step {step_in_name}, and the step '
        f'is {step}; T5X needs both to be the same'
      )
    return free_path(path), step_in_name
  step = 0 if step is None else step
  location = os.fspath(path)
  if os.path.isfile(location):
    raise SeedError(f'{location} exists already and is a file')
  folder = location if location.endswith('/') else f'{location}/'
  return free_path(f'{folder}checkpoint_{step}'), step


def host_arrays(params: Mapping[str, Any], path: Any) -> dict[str, np.ndarray]:
  """Returns parameters by their paths, in the memory of the host.

  Args:
    params: nested dict of NumPy or JAX arrays.
    path: where they will be written, for the error.

  Returns:
    Arrays by path, sorted.

  Raises:
    SeedError: if there are none, or one cannot be stored.

  Example:
    >>> host_arrays({'a': {'b': np.ones(1)}}, 'out')
    {'a/b': array([1.])}
  """
  try:
    arrays = {
      name: fingerprints.to_host(leaf, name)
      for name, leaf in paths.flatten(params).items()
    }
  except ValueError as error:
    raise SeedError(f'{path}: cannot be written: {error}') from error
  if not arrays:
    raise SeedError(f'{path}: there are no parameters to write')
  return arrays
