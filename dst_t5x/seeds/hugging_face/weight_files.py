"""Lists the weights of a Hugging Face folder: their files and shapes."""

import json
import os
import pathlib

import jax

from dst_t5x.seeds import safetensors_parts
from dst_t5x.seeds.errors import SeedError

ONE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
# Weights in formats that are not read; the first two are pickles.
_OTHERS = (
  'pytorch_model.bin',
  'pytorch_model.bin.index.json',
  'flax_model.msgpack',
  'tf_model.h5',
)

Tables = tuple[dict[str, str], dict[str, jax.ShapeDtypeStruct]]


def tables(folder: str, file: str | None = None) -> Tables:
  """Returns the file, the shape and the dtype of every tensor.

  Args:
    folder: path of the checkpoint.
    file: path of the one file of weights; None for those with the usual names.

  Returns:
    Paths of files, and shapes and dtypes; both by the tensor's name.

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
    shard_of = _index(index)
    shards = sorted(set(shard_of.values()))
    files, specs = _read([os.path.join(folder, s) for s in shards], folder)
    for name, shard in shard_of.items():
      if files.get(name) != os.path.join(folder, shard):
        raise SeedError(
          f'{folder}: {shard} lacks {name!r}, which {INDEX} says it holds'
        )
    extra = sorted(set(files) - set(shard_of))
    if extra:
      raise SeedError(f'{folder}: {INDEX} does not name {extra[0]!r}')
    return files, specs
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
  file_of: dict[str, str] = {}
  specs: dict[str, jax.ShapeDtypeStruct] = {}
  for file in files:
    with safetensors_parts.opened(file, folder) as handle:
      for name, spec in safetensors_parts.specs(handle, folder).items():
        if name in file_of:
          raise SeedError(f'{file} and {file_of[name]} both hold {name!r}')
        file_of[name], specs[name] = file, spec
  return file_of, specs


def _index(path: pathlib.Path) -> dict[str, str]:
  try:
    shard_of = dict(json.loads(path.read_bytes())['weight_map'].items())
  except (
    ValueError,
    RecursionError,
    OSError,
    KeyError,
    TypeError,
    AttributeError,
  ) as error:
    raise SeedError(f'{path} is no index of weights: {error!r}') from error
  for name, shard in shard_of.items():
    if not isinstance(shard, str) or shard != os.path.basename(shard):
      raise SeedError(f'{path}: {name!r} lies in {shard!r}, which is no file')
  return shard_of
