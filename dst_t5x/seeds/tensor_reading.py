"""Reads whole, sharded or hashed tensors, given a function that reads a part.

A layout implements `ReadPart`; everything else about reading is here.
"""

import concurrent.futures
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import numpy as np

from dst_t5x.arrays import fingerprints, known_names
from dst_t5x.seeds.errors import SeedError

Specs = Mapping[str, jax.ShapeDtypeStruct]
Index = tuple[slice, ...]
Bounds = tuple[tuple[int, int], ...]
# Takes a name and a slice with both bounds for every axis; returns that part of
# the tensor as an array of the host.
ReadPart = Callable[[str, Index], np.ndarray]


def read(
  specs: Specs,
  read_part: ReadPart,
  *,
  location: str,
  shardings: Mapping[str, jax.sharding.Sharding] | None = None,
  dtype: Any = None,
  names: Collection[str] | None = None,
  workers: int = 1,
) -> dict[str, Any]:
  """Reads tensors; each process reads only the parts that its devices hold.

  Args:
    specs: shape and dtype of every tensor, by name.
    read_part: reads a part of one tensor.
    location: location of the checkpoint, for errors.
    shardings: sharding of every tensor, by name; None for NumPy arrays.
    dtype: dtype to cast to; None for no cast.
    names: names of the tensors to read; None for all.
    workers: number of tensors to read at once (count). More than 1 is faster
      for remote files, and needs a `read_part` that is safe in threads.

  Returns:
    Arrays by name, sorted.

  Raises:
    SeedError: if a name is unknown or lacks a sharding.

  Example:
    >>> stored = {'a': np.arange(4)}
    >>> specs = {'a': jax.ShapeDtypeStruct((4,), stored['a'].dtype)}
    >>> read(specs, lambda name, at: stored[name][at], location='here')
    {'a': array([0, 1, 2, 3])}
  """
  wanted = check_names(specs, names, location)
  check_shardings(wanted, shardings, location)

  def parts(name: str) -> dict[Bounds, np.ndarray]:
    sharding = None if shardings is None else shardings[name]
    return {
      bounds: cast(read_part(name, tuple(slice(*b) for b in bounds)), dtype)
      for bounds in _needed(specs[name].shape, sharding)
    }

  arrays: dict[str, Any] = {}
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    for start in range(0, len(wanted), workers):
      group = wanted[start : start + workers]
      for name, part in zip(group, pool.map(parts, group), strict=True):
        if shardings is None:
          (arrays[name],) = part.values()
        else:
          arrays[name] = _place(specs[name].shape, shardings[name], part)
  return arrays


def digests(
  specs: Specs,
  read_part: ReadPart,
  *,
  location: str,
  names: Collection[str] | None = None,
) -> dict[str, fingerprints.TensorDigest]:
  """Hashes tensors one by one.

  Args:
    specs: shape and dtype of every tensor, by name.
    read_part: reads a part of one tensor.
    location: location of the checkpoint, for errors.
    names: names of the tensors to hash; None for all.

  Returns:
    Digests by name, sorted.

  Raises:
    SeedError: if a name is unknown.

  Example:
    >>> specs = {'a': jax.ShapeDtypeStruct((2,), np.int8)}
    >>> a = np.int8([1, 2])
    >>> digests(specs, lambda name, at: a[at], location='here')['a'].dtype
    'int8'
  """
  return {
    name: fingerprints.digest(read_part(name, whole(specs[name].shape)), name)
    for name in check_names(specs, names, location)
  }


def check_names(
  specs: Specs, names: Collection[str] | None, location: str
) -> list[str]:
  """Returns the names that were asked for, sorted.

  Args:
    specs: the tensors of the checkpoint, by name.
    names: names that were asked for; None for all.
    location: location of the checkpoint, for the error.

  Returns:
    The names.

  Raises:
    SeedError: if the checkpoint lacks one, with the nearest that it has.

  Example:
    >>> check_names({'scale': jax.ShapeDtypeStruct((), float)}, None, 'here')
    ['scale']
  """
  if names is None:
    return sorted(specs)
  for name in names:
    if name not in specs:
      raise SeedError(
        f'the seed {location} has no parameter {name!r}'
        + known_names.hint(name, specs)
      )
  return sorted(set(names))


def check_shardings(
  names: Collection[str],
  shardings: Mapping[str, jax.sharding.Sharding] | None,
  location: str,
) -> None:
  """Raises unless every name has a sharding, or none is needed.

  Args:
    names: names of the tensors to read.
    shardings: sharding of every tensor, by name; None if none is needed.
    location: location of the checkpoint, for the error.

  Raises:
    SeedError: naming the tensors that lack one.

  Example:
    >>> check_shardings(['a'], None, 'here')
  """
  missing = sorted(set(names) - set(names if shardings is None else shardings))
  if missing:
    raise SeedError(
      f'no sharding for {", ".join(map(repr, missing[:5]))}'
      + (f' and {len(missing) - 5} more' if len(missing) > 5 else '')
      + f' of the seed {location}; give one for each, or name what to read'
    )


def cast(array: np.ndarray, dtype: Any) -> np.ndarray:
  """Returns an array in another dtype, or the array itself.

  Args:
    array: array of any shape and dtype.
    dtype: dtype to cast to; None for the array itself.

  Returns:
    The array.

  Example:
    >>> cast(np.ones(1), None).dtype, cast(np.ones(1), np.float32).dtype
    (dtype('float64'), dtype('float32'))
  """
  return array if dtype is None else array.astype(dtype, copy=False)


def whole(shape: tuple[int, ...]) -> Index:
  """Returns the index that takes the whole of a tensor.

  Args:
    shape: shape of the tensor.

  Returns:
    A slice with both bounds for every axis.

  Example:
    >>> whole((2, 3))
    (slice(0, 2, None), slice(0, 3, None))
  """
  return tuple(slice(0, size) for size in shape)


def _needed(
  shape: tuple[int, ...], sharding: jax.sharding.Sharding | None
) -> set[Bounds]:
  """Returns the bounds of the parts that this process holds, each once."""
  if sharding is None:
    return {_bounds(whole(shape), shape)}
  indices = sharding.addressable_devices_indices_map(shape).values()
  return {_bounds(index or (), shape) for index in indices}


def _bounds(index: Index, shape: tuple[int, ...]) -> Bounds:
  return tuple(
    at.indices(size)[:2] for at, size in zip(index, shape, strict=True)
  )


def _place(
  shape: tuple[int, ...],
  sharding: jax.sharding.Sharding,
  parts: Mapping[Bounds, np.ndarray],
) -> jax.Array:
  return jax.make_array_from_callback(
    shape, sharding, lambda index: parts[_bounds(index or (), shape)]
  )
