"""Reading a seed from any layout, writing one, and checking that it fits.

A seed is the set of parameters that fine-tuning starts from and that deltas
refer to.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from dst_t5x.arrays import fingerprints, known_names, paths, quoting
from dst_t5x.arrays.source import Source
from dst_t5x.seeds import layouts, own_layout
from dst_t5x.seeds.errors import SeedError

BUNDLED = 'bundled'


class ShapeAndDtype(Protocol):
  """Anything with a shape and a dtype, such as a `jax.ShapeDtypeStruct`."""

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
  """A seed in the host's memory.

  Attributes:
    params: nested dict of NumPy arrays that cannot be written to.
    config: the network's configuration (JSON types); None if the layout does
      not hold it.
    location: where the seed was read; reads the same seed again.
    fingerprint: fingerprint of the parameters; see `arrays.fingerprints`.
  """

  params: dict[str, Any]
  config: dict[str, Any] | None
  location: str
  fingerprint: str


def open_source(path: str | os.PathLike[str]) -> Source:
  """Opens a seed without reading its parameters.

  Args:
    path: 'bundled' for the seed that comes with the package; a file that
      `write` wrote; a T5X or Orbax checkpoint, local or a URL such as
      gs://bucket/t5/checkpoint_1000000; a folder or safetensors file of a
      Hugging Face T5.

  Returns:
    The opened seed.

  Raises:
    SeedNotFoundError: if no seed lies there.
    NotThisLayoutError: if a file there is of a format that is not read.
    SeedError: if the seed is damaged, or there are several.

  Example:
    >>> source = open_source('bundled')
    >>> source.layout, source.specs()['decoder/decoder_norm/scale'].shape
    ('dst_t5x', (96,))
  """
  location = os.fspath(path)
  if location == BUNDLED:
    return own_layout.open_source(str(bundled_path()), location)
  return layouts.open_source(location)


def read(path: str | os.PathLike[str]) -> Seed:
  """Reads a whole seed.

  The layout of dst-t5x holds a fingerprint, and the parameters are checked
  against it. The other layouts hold none: there, only damage that their formats
  reveal is noticed.

  Args:
    path: as for `open_source`.

  Returns:
    The seed, in the host's memory.

  Raises:
    SeedError: in the cases that `open_source` names.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as d:
    ...   file = os.path.join(d, 'seed.safetensors')
    ...   _ = write(file, {'scale': np.ones(2)}, config=None)
    ...   read(file).params
    {'scale': array([1., 1.])}
  """
  source = open_source(path)
  flat = source.read()
  try:
    params = paths.unflatten(flat)
    fingerprint = fingerprints.fingerprint(params)
  except ValueError as error:
    raise SeedError(
      f'the seed {source.location} is damaged: {error}'
    ) from error
  if isinstance(source, own_layout.OwnSource):
    source.check_fingerprint(fingerprint)
  for array in flat.values():
    array.flags.writeable = False
  return Seed(params, source.config, source.location, fingerprint)


def bundled_path() -> pathlib.Path:
  """Returns the path of the seed that comes with the package.

  Returns:
    Path of its file.

  Raises:
    SeedError: if the installation lacks it.

  Example:
    >>> bundled_path().name
    'byte_tiny.safetensors'
  """
  package = pathlib.Path(__file__).resolve().parents[1]
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
  """Writes a seed in the layout of dst-t5x: one safetensors file.

  The file is replaced as a whole or not at all. The same parameters and
  configuration always give the same bytes.

  Args:
    path: path of the file, ending in .safetensors.
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
  own_layout.write(params, path, config=config, overwrite=True)
  return os.path.getsize(path)


def check_params(
  params: Mapping[str, Any],
  expected: Mapping[str, ShapeAndDtype],
  *,
  origin: str,
) -> None:
  """Raises unless parameters have the expected names, shapes and dtypes.

  Args:
    params: nested dict of arrays.
    expected: shape and dtype of every parameter that is needed, by path.
    origin: where the parameters came from, for the error.

  Raises:
    SeedError: naming the first parameters that are missing, not expected, or
      of another shape or dtype, and how many more there are.

  Example:
    >>> check_params({'scale': np.ones(2)}, {'scael': np.ones(2)}, origin='a')
    Traceback (most recent call last):
    ...
    dst_t5x.seeds.errors.SeedError: a does not fit the network:
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
  number = len(problems)
  has_other_dtype = any(' has dtype ' in problem for problem in problems)
  problems = problems[: quoting.MOST_NAMES]
  if number > len(problems):
    problems.append(f'and {number - len(problems)} more differences')
  if has_other_dtype:
    problems.append(
      '(dst-t5x seed convert --dtype writes a seed of another dtype)'
    )
  if problems:
    lines = ''.join(f'\n  {problem}' for problem in problems)
    raise SeedError(f'{origin} does not fit the network:{lines}')


def _nearest(path: str, known: Iterable[str]) -> str:
  # In brackets, as the lines that name several parameters stand in a list.
  names = known_names.nearest(path, known)
  return f' (nearest: {names[0]!r})' if names else ''


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
