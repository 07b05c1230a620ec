"""Which layout lies at a place."""

import os
import pathlib

from dst_t5x.arrays.source import Source
from dst_t5x.seeds import (
  folders,
  orbax_layout,
  own_layout,
  safetensors_parts,
  t5x_index,
  t5x_legacy,
)
from dst_t5x.seeds.errors import SeedError
from dst_t5x.seeds.hugging_face import model_folder

WHAT_WORKS = (
  "'bundled', a .safetensors file written by dst-t5x, a T5X or Orbax "
  'checkpoint (a folder such as checkpoint_1000000, local or gs://), or a '
  'Hugging Face T5 folder with config.json and model.safetensors'
)


def open_source(location: str) -> Source:
  """Opens whatever lies at a place.

  Args:
    location: path or URL.

  Returns:
    The source.

  Raises:
    SeedError: if nothing lies there that can be read, with what can.

  Example:
    >>> open_source('no/such/seed')
    Traceback (most recent call last):
    ...
    dst_t5x.seeds.errors.SeedError: cannot read the seed \
    no/such/seed: no such file or directory; what works: ...
  """
  if not folders.is_remote(location) and os.path.isfile(location):
    return _open_file(location)
  if folders.is_remote(location) and location.endswith('.safetensors'):
    raise SeedError(
      f'{location}: a .safetensors file on a remote path is not read; copy it '
      'to this machine first'
    )
  # Early Orbax checkpoints have a file of that name too.
  if folders.read_file(
    location, t5x_index.NAME
  ) is not None and not _has_orbax_metadata(location):
    return t5x_legacy.open_source(location)
  if orbax_layout.item_of(location) is not None:
    return orbax_layout.open_source(location)
  if folders.read_file(location, model_folder.CONFIG) is not None:
    return model_folder.open_source(location)
  names = folders.checkpoint_names(location)
  if len(names) == 1:
    return open_source(folders.join(location, names[0]))
  if names:
    shown = names if len(names) < 9 else [*names[:3], '…', *names[-5:]]
    raise SeedError(
      f'{location} holds {len(names)} checkpoints; name one of them: '
      + ', '.join(shown)
    )
  raise SeedError(_nothing(location))


def _open_file(location: str) -> Source:
  if pathlib.Path(location).name == t5x_index.NAME:
    # T5X itself takes the index for the checkpoint.
    return open_source(os.path.dirname(location) or '.')
  try:
    with safetensors_parts.opened(location, location) as handle:
      names = list(handle.keys())
      ours = (handle.metadata() or {}).get('format', '').startswith('dst_t5x')
    if not ours and model_folder.is_one(names):
      return model_folder.open_source(
        os.path.dirname(location) or '.', location
      )
    return own_layout.open_source(location)
  except SeedError as error:
    if 'works' in str(error) or 'is damaged' in str(error):
      raise
    raise SeedError(f'{error}; what works: {WHAT_WORKS}') from error


def _has_orbax_metadata(location: str) -> bool:
  return folders.read_file(location, '_METADATA') is not None


def _nothing(location: str) -> str:
  if folders.is_remote(location):
    what = 'nothing that can be read lies there'
  elif not os.path.exists(location):
    what = 'no such file or directory'
  else:
    what = 'it is a directory, but no checkpoint of T5X, Orbax or Hugging Face'
  return f'cannot read the seed {location}: {what}; what works: {WHAT_WORKS}'
