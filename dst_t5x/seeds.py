"""Seeds: the parameters that fine-tuning starts from and deltas refer to."""

import dataclasses
import difflib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import safetensors

from dst_t5x import fingerprints, paths, safetensors_file

BUNDLED = 'bundled'
_FORMAT = 'dst_t5x.seed'
_VERSION = '1'
_WHAT_WORKS = (
  f'{BUNDLED!r}, or a .safetensors file written by dst_t5x.seeds.write'
)

fingerprint = fingerprints.fingerprint


class SeedError(ValueError):
  """A seed that cannot be read, or does not fit."""


class ShapeAndDtype(Protocol):
  """What `check_params` expects of a tensor; `jax.ShapeDtypeStruct` is one."""

  @property
  def shape(self) -> tuple[int, ...]:
    """The shape."""
    ...

  @property
  def dtype(self) -> Any:
    """The dtype."""
    ...


@dataclasses.dataclass(frozen=True, eq=False)
class Seed:
  """A seed and where it came from.

  Attributes:
    params: nested dict of NumPy arrays that cannot be written to.
    config: the network's configuration, if the file tells.
    location: what was read, to read it again.
    fingerprint: of the parameters; see `fingerprints`.
  """

  params: dict[str, Any]
  config: dict[str, Any] | None
  location: str
  fingerprint: str


def read(path: str | os.PathLike[str]) -> Seed:
  """Returns a seed, checked against the fingerprint that it was written with.

  Args:
    path: 'bundled' for the seed that comes with the package, or a file that
      `write` wrote.

  Returns:
    The seed.

  Raises:
    SeedError: if there is no such seed, or it is damaged, or something else.
    NotImplementedError: if it is a checkpoint in a layout that cannot be read
      yet: T5X, Orbax, Hugging Face, or anything on a remote path.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as d:
    ...   file = os.path.join(d, 'seed.safetensors')
    ...   _ = write(file, {'scale': np.ones(2)}, config=None)
    ...   read(file).params
    {'scale': array([1., 1.])}
  """
  location = os.fspath(path)
  if location == BUNDLED:
    return _read_file(bundled_path(), location)
  _refuse_other_layouts(location)
  return _read_file(pathlib.Path(location), location)


def bundled_path() -> pathlib.Path:
  """Returns where the bundled seed lies.

  Returns:
    Path of its file.

  Raises:
    SeedError: if the installation lacks it.

  Example:
    >>> bundled_path().name
    'byte_tiny.safetensors'
  """
  package = pathlib.Path(__file__).resolve().parent
  file = package / 'bundled' / 'byte_tiny.safetensors'
  if not file.is_file():
    raise SeedError(f'{BUNDLED!r}: this installation lacks {file}')
  return file


def write(
  path: str | os.PathLike[str],
  params: Mapping[str, Any],
  *,
  config: Mapping[str, Any] | None,
) -> int:
  """Writes a seed atomically: one safetensors file, one tensor a parameter.

  The same parameters and configuration always give the same bytes.

  Args:
    path: the file, ending in .safetensors.
    params: nested dict of NumPy or JAX arrays.
    config: the network's configuration (JSON types), or None.

  Returns:
    Size of the file (bytes).

  Raises:
    SeedError: if the name has another ending, or a parameter or the
      configuration cannot be stored.
    OSError: if the file cannot be written; what was there is still there.

  Example:
    >>> import tempfile
    >>> params = {'scale': np.ones(2)}
    >>> with tempfile.TemporaryDirectory() as d:
    ...   write(os.path.join(d, 'a.safetensors'), params, config=None)
    232
  """
  location = os.fspath(path)
  if not location.endswith('.safetensors'):
    raise SeedError(f'{location}: the name of a seed must end in .safetensors')
  try:
    digests = {
      name: fingerprints.digest(leaf, name)
      for name, leaf in paths.flatten(params).items()
    }
    metadata = {
      'format': _FORMAT,
      'version': _VERSION,
      'fingerprint': fingerprints.combine(digests),
    }
    if config is not None:
      metadata['config'] = json.dumps(dict(config), allow_nan=False)
    return safetensors_file.write(path, _tensors(params), metadata)
  except SeedError:
    raise
  except (TypeError, ValueError) as error:
    raise SeedError(f'{location}: cannot be written: {error}') from error


def check_params(
  params: Mapping[str, Any],
  expected: Mapping[str, ShapeAndDtype],
  *,
  origin: str,
) -> None:
  """Checks names, shapes and dtypes of parameters.

  Args:
    params: nested dict of arrays.
    expected: what is needed, by path.
    origin: where the parameters came from, for the error.

  Raises:
    SeedError: naming every missing, extra, and wrongly shaped or typed tensor.

  Example:
    >>> check_params({'scale': np.ones(2)}, {'scael': np.ones(2)}, origin='a')
    Traceback (most recent call last):
    ...
    dst_t5x.seeds.SeedError: a does not fit the network:
      missing 'scael' (nearest: 'scale')
      not in the network: 'scale' (nearest: 'scael')
  """
  flat = paths.flatten(params)
  problems = [
    f'missing {path!r}{_nearest(path, flat)}'
    for path in sorted(expected)
    if path not in flat
  ]
  problems += [
    f'not in the network: {path!r}{_nearest(path, expected)}'
    for path in flat
    if path not in expected
  ]
  for path in sorted(expected):
    if path in flat:
      problems += _differences(path, flat[path], expected[path])
  if problems:
    lines = ''.join(f'\n  {problem}' for problem in problems)
    raise SeedError(f'{origin} does not fit the network:{lines}')


def _differences(path: str, leaf: Any, wanted: ShapeAndDtype) -> list[str]:
  problems = []
  shape, dtype = getattr(leaf, 'shape', None), getattr(leaf, 'dtype', None)
  if shape is None or tuple(shape) != tuple(wanted.shape):
    problems.append(f'{path!r} has shape {shape} instead of {wanted.shape}')
  if dtype is None or np.dtype(dtype) != np.dtype(wanted.dtype):
    problems.append(
      f'{path!r} has dtype {dtype} instead of {np.dtype(wanted.dtype)}'
    )
  return problems


def _read_file(file: pathlib.Path, location: str) -> Seed:
  try:
    handle = safetensors_file.open_safely(file)
  except ValueError as error:
    raise SeedError(
      f'cannot read the seed: {error}; what works: {_WHAT_WORKS}'
    ) from error
  with handle:
    metadata = handle.metadata() or {}
    names = list(handle.keys())
    _check_metadata(metadata, names, location)
    flat = _tensors_in(handle, names, location)
  try:
    params = paths.unflatten(flat)
    found = fingerprints.fingerprint(params)
    config = json.loads(metadata['config']) if 'config' in metadata else None
  except (ValueError, RecursionError) as error:
    raise SeedError(f'the seed {location} is damaged: {error}') from error
  if found != metadata.get('fingerprint'):
    raise SeedError(
      f'the seed {location} is damaged: its parameters have the fingerprint '
      f'{found}, and {metadata.get("fingerprint")} was written'
    )
  for array in flat.values():
    array.flags.writeable = False
  return Seed(params, config, location, found)


def _tensors_in(
  handle: Any, names: Sequence[str], location: str
) -> dict[str, np.ndarray]:
  try:
    return {name: np.asarray(handle.get_tensor(name)) for name in names}
  except (safetensors.SafetensorError, OSError, KeyError) as error:
    raise SeedError(f'cannot read the seed {location}: {error}') from error


def _check_metadata(
  metadata: Mapping[str, str], names: Sequence[str], location: str
) -> None:
  found = metadata.get('format')
  if found != _FORMAT:
    if metadata.get('format') == 'dst_t5x.delta':
      raise SeedError(
        f'{location} is a delta, not a seed: give the seed that it was made '
        'from, and apply the delta to it'
      )
    if any(name == 'shared.weight' or '.block.0.' in name for name in names):
      raise NotImplementedError(
        f'{location} is a Hugging Face checkpoint, which cannot be read yet'
      )
    raise SeedError(
      f'{location} is a safetensors file of another format ({found!r}); what '
      f'works: {_WHAT_WORKS}'
    )
  version = metadata.get('version')
  if version != _VERSION:
    raise SeedError(
      f'{location} is a seed of version {version!r}; this release reads '
      f'version {_VERSION}'
    )


def _refuse_other_layouts(location: str) -> None:
  """Names the checkpoints that exist but cannot be read yet."""
  kind = None
  if '://' in location:
    kind = 'on a remote path'
  elif os.path.isdir(location):
    names = set(os.listdir(location))
    if 'checkpoint' in names:
      kind = 'a T5X checkpoint in the legacy layout'
    elif {'_METADATA', '_CHECKPOINT_METADATA', 'manifest.ocdbt'} & names:
      kind = 'an Orbax checkpoint'
    elif 'config.json' in names:
      kind = 'a Hugging Face checkpoint'
    else:
      raise SeedError(
        f'cannot read the seed {location}: it is a directory, but no '
        f'checkpoint of T5X, Orbax or Hugging Face; what works: {_WHAT_WORKS}'
      )
  if kind:
    raise NotImplementedError(
      f'the seed {location} is {kind}, which cannot be read yet; what works: '
      f'{_WHAT_WORKS}'
    )


def _tensors(params: Mapping[str, Any]) -> list[safetensors_file.Tensor]:
  tensors = []
  for name, leaf in paths.flatten(params).items():
    dtype, shape = np.dtype(leaf.dtype), tuple(leaf.shape)
    tensors.append(
      safetensors_file.Tensor(
        name,
        dtype.name,
        shape,
        dtype.itemsize * int(np.prod(shape, dtype=np.int64)),
        _chunks(leaf, name),
      )
    )
  # Wide dtypes first, so that every tensor is aligned in a memory map.
  return sorted(
    tensors, key=lambda t: (-fingerprints.DTYPES[t.dtype].itemsize, t.name)
  )


def _chunks(leaf: Any, name: str) -> Iterator[memoryview]:
  # A generator, so that only one tensor at a time is copied to the host.
  yield from fingerprints.little_endian_chunks(fingerprints.to_host(leaf, name))


def _nearest(name: str, known: Mapping[str, object]) -> str:
  close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
  return f' (nearest: {close[0]!r})' if close else ''
