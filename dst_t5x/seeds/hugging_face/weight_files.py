"""Which safetensors files a Hugging Face folder has, and what is in them."""

import json
import os
import pathlib

import jax

from dst_t5x.seeds import safetensors_parts
from dst_t5x.seeds.errors import SeedError

ONE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
# Kept in formats that we do not read; the first is a pickle.
_OTHERS = (
  'pytorch_model.bin',
  'pytorch_model.bin.index.json',
  'flax_model.msgpack',
  'tf_model.h5',
)

Tables = tuple[dict[str, str], dict[str, jax.ShapeDtypeStruct]]


def tables(folder: str, file: str | None = None) -> Tables:
  """Returns where every tensor lies, and its shape and dtype.

  Args:
    folder: of the checkpoint.
    file: of the weights, if not those with the usual names.

  Returns:
    Files and specs, both by the tensor's name.

  Raises:
    SeedError: if a file is missing, damaged, or of a kind that is not read.

  Example:
    >>> tables('no/such/folder')
    Traceback (most recent call last):
    ...
    dst_t5x.seeds.errors.SeedError: no/such/folder lacks \
    model.safetensors and model.safetensors.index.json: it holds no weights
  """
  if file is not None:
    return _read([file], folder)
  index = pathlib.Path(folder, INDEX)
  if index.is_file():
    named = _index(index)
    shards = sorted(set(named.values()))
    found = _read([os.path.join(folder, shard) for shard in shards], folder)
    for name, shard in named.items():
      if found[0].get(name) != os.path.join(folder, shard):
        raise SeedError(f'{folder}: {shard} lacks {name!r}, which {INDEX} says')
    extra = sorted(set(found[0]) - set(named))
    if extra:
      raise SeedError(f'{folder}: {INDEX} does not name {extra[0]!r}')
    return found
  if os.path.isfile(os.path.join(folder, ONE)):
    return _read([os.path.join(folder, ONE)], folder)
  others = [n for n in _OTHERS if os.path.exists(os.path.join(folder, n))]
  if others:
    raise SeedError(
      f'{folder} holds its weights in {others[0]} only, which is not read'
      + (
        ', as unpickling can run code'
        if others[0].startswith('pytorch')
        else ''
      )
      + f'; save the model with transformers again, which writes {ONE}'
    )
  raise SeedError(f'{folder} lacks {ONE} and {INDEX}: it holds no weights')


def _read(files: list[str], folder: str) -> Tables:
  where: dict[str, str] = {}
  specs: dict[str, jax.ShapeDtypeStruct] = {}
  for file in files:
    with safetensors_parts.opened(file, folder) as handle:
      for name, spec in safetensors_parts.specs(handle, folder).items():
        if name in where:
          raise SeedError(f'{file} and {where[name]} both hold {name!r}')
        where[name], specs[name] = file, spec
  return where, specs


def _index(path: pathlib.Path) -> dict[str, str]:
  try:
    named = json.loads(path.read_bytes())['weight_map']
    items = dict(named.items())
  except (
    ValueError,
    RecursionError,
    OSError,
    KeyError,
    TypeError,
    AttributeError,
  ) as error:
    raise SeedError(f'{path} is no index of weights: {error!r}') from error
  for name, shard in items.items():
    if not isinstance(shard, str) or shard != os.path.basename(shard):
      raise SeedError(f'{path}: {name!r} lies in {shard!r}, which is no file')
  return items
