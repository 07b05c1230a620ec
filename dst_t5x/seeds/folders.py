"""Files and checkpoints in folders, on this machine or behind a URL.

Behind a URL (gs://, s3://, http://, file://) they are read by TensorStore, with
the drivers that then read the tensors. A path without '://' does not need it.
"""

import os
import pathlib
from typing import Any

from dst_t5x.seeds.errors import SeedError


def is_remote(location: str) -> bool:
  """Returns whether a location is a URL.

  Args:
    location: path or URL.

  Returns:
    Whether it is a URL.

  Example:
    >>> is_remote('gs://bucket/t5'), is_remote('checkpoints/t5')
    (True, False)
  """
  return '://' in location


def join(location: str, name: str) -> str:
  """Returns the location of something in a folder.

  Args:
    location: path or URL of the folder.
    name: name of what is in it; may hold '/'.

  Returns:
    Path or URL.

  Example:
    >>> join('gs://bucket/t5/', 'checkpoint')
    'gs://bucket/t5/checkpoint'
  """
  return f'{location.rstrip("/")}/{name}'


def kvstore(location: str) -> Any:
  """Returns a folder as a TensorStore spec names it (its key-value store).

  Args:
    location: path or URL of the folder.

  Returns:
    A URL, or a JSON object for a local path.

  Example:
    >>> kvstore('gs://bucket/t5')
    'gs://bucket/t5/'
  """
  if is_remote(location):
    return f'{location.rstrip("/")}/'
  path = os.path.abspath(location)
  return {'driver': 'file', 'path': f'{path.rstrip("/")}/'}


def read_file(location: str, name: str) -> bytes | None:
  """Returns the content of a file in a folder.

  Args:
    location: path or URL of the folder.
    name: name of the file; may hold '/'.

  Returns:
    The content; None if there is no such file.

  Raises:
    SeedError: if it cannot be read.

  Example:
    >>> read_file('no/such/folder', 'checkpoint') is None
    True
  """
  if not is_remote(location):
    path = pathlib.Path(location, name)
    try:
      return path.read_bytes() if path.is_file() else None
    except OSError as error:
      raise SeedError(f'cannot read {path}: {error}') from error
  try:
    result = _open(location).read(name).result()
  except (ValueError, OSError, NotImplementedError) as error:
    raise SeedError(f'cannot read {join(location, name)}: {error}') from error
  return bytes(result.value) if result.state == 'value' else None


def step_of(name: str) -> int | None:
  """Returns the step that the name of a checkpoint's folder tells.

  Args:
    name: name of the folder, without its path.

  Returns:
    The step; None if it is not the name of a checkpoint.

  Example:
    >>> step_of('checkpoint_1000'), step_of('checkpoint_best')
    (1000, None)
  """
  prefix, _, number = name.rpartition('_')
  if prefix == 'checkpoint' and number.isascii() and number.isdigit():
    return int(number)
  return None


def checkpoint_names(location: str) -> list[str]:
  """Returns the names of the checkpoints in a folder, the oldest first.

  Args:
    location: path or URL of the folder.

  Returns:
    Names such as 'checkpoint_1000'; empty if there are none, or if what is
    behind the URL cannot be listed.

  Example:
    >>> checkpoint_names('no/such/folder')
    []
  """
  if is_remote(location):
    names = _remote_names(location)
  else:
    path = pathlib.Path(location)
    names = (
      {child.name for child in path.iterdir() if child.is_dir()}
      if path.is_dir()
      else set()
    )
  steps = {name: step_of(name) for name in names}
  known = {name: step for name, step in steps.items() if step is not None}
  return sorted(known, key=known.__getitem__)


def _open(location: str) -> Any:
  import tensorstore as ts

  # By default it retries for many minutes; a wrong name should fail at once.
  retries = {'max_retries': 3, 'initial_delay': '500ms', 'max_delay': '2s'}
  context = ts.Context(
    {f'{kind}_request_retries': retries for kind in ('gcs', 's3', 'http')}
  )
  return ts.KvStore.open(kvstore(location), context=context).result()


def _remote_names(location: str) -> set[str]:
  import tensorstore as ts

  prefix = 'checkpoint_'
  only_checkpoints = ts.KvStore.KeyRange(prefix, prefix + '\x7f')
  try:
    keys = _open(location).list(only_checkpoints).result()
  except (ValueError, OSError, NotImplementedError):
    return set()  # plain web servers cannot list
  return {key.decode(errors='replace').split('/')[0] for key in keys}
