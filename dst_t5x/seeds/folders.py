"""Folders of checkpoints, on this machine or behind a URL.

TensorStore reads all of them (gs://, s3://, http://, file://), with the same
drivers that then read the tensors; a path without '://' needs none of it.
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
    name: of what is in it, may hold '/'.

  Returns:
    Path or URL.

  Example:
    >>> join('gs://bucket/t5/', 'checkpoint')
    'gs://bucket/t5/checkpoint'
  """
  return f'{location.rstrip("/")}/{name}'


def kvstore(location: str) -> Any:
  """Returns how TensorStore names a folder.

  Args:
    location: path or URL of the folder.

  Returns:
    A URL or a JSON object, as a TensorStore spec takes it.

  Example:
    >>> kvstore('gs://bucket/t5')
    'gs://bucket/t5/'
  """
  if is_remote(location):
    return f'{location.rstrip("/")}/'
  path = os.path.abspath(location)
  return {'driver': 'file', 'path': f'{path.rstrip("/")}/'}


def read_file(location: str, name: str) -> bytes | None:
  """Returns what a file in a folder holds.

  Args:
    location: path or URL of the folder.
    name: of the file, may hold '/'.

  Returns:
    Its content; None if there is no such file.

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
    found = _open(location).read(name).result()
  except (ValueError, OSError, NotImplementedError) as error:
    raise SeedError(f'cannot read {join(location, name)}: {error}') from error
  return bytes(found.value) if found.state == 'value' else None


def checkpoint_names(location: str) -> list[str]:
  """Returns the checkpoints in a folder by their names, the oldest first.

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
  steps = {}
  for name in names:
    prefix, _, number = name.rpartition('_')
    if prefix == 'checkpoint' and number.isascii() and number.isdigit():
      steps[name] = int(number)
  return sorted(steps, key=steps.__getitem__)


def _open(location: str) -> Any:
  import tensorstore as ts

  # By default it tries for many minutes; a wrong name should be told at once.
  retries = {'max_retries': 3, 'initial_delay': '500ms', 'max_delay': '2s'}
  context = ts.Context(
    {f'{kind}_request_retries': retries for kind in ('gcs', 's3', 'http')}
  )
  return ts.KvStore.open(kvstore(location), context=context).result()


def _remote_names(location: str) -> set[str]:
  import tensorstore as ts

  prefix = 'checkpoint_'
  only = ts.KvStore.KeyRange(prefix, prefix + '\x7f')
  try:
    keys = _open(location).list(only).result()
  except (ValueError, OSError, NotImplementedError):
    return set()  # plain web servers cannot list
  return {key.decode(errors='replace').split('/')[0] for key in keys}
