"""From 'give me this part of that tensor' to whole, sharded or hashed ones."""

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
# Name and a slice with bounds for every axis → that part, on the host.
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
  """Reads tensors, each process only the parts that its devices hold.

  Args:
    specs: shape and dtype of every tensor, by name.
    read_part: reads a part of one.
    location: of the checkpoint, for errors.
    shardings: by name; None for NumPy arrays.
    dtype: what to cast to; None for no cast.
    names: which tensors; None for all.
    workers: tensors to read at once (count), if `read_part` bears it; what is
      far away comes faster.

  Returns:
    Arrays by name, sorted.

  Raises:
    SeedError: if a name is unknown or lacks a sharding.

  Example:
    >>> held = {'a': np.arange(4)}
    >>> specs = {'a': jax.ShapeDtypeStruct((4,), held['a'].dtype)}
    >>> read(specs, lambda name, at: held[name][at], location='here')
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

  found: dict[str, Any] = {}
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    for start in range(0, len(wanted), workers):
      group = wanted[start : start + workers]
      for name, held in zip(group, pool.map(parts, group), strict=True):
        if shardings is None:
          (found[name],) = held.values()
        else:
          found[name] = _place(specs[name].shape, shardings[name], held)
  return found


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
    read_part: reads a part of one.
    location: of the checkpoint, for errors.
    names: which tensors; None for all.

  Returns:
    Digests by name, sorted.

  Raises:
    SeedError: if a name is unknown.

  Example:
    >>> specs = {'a': jax.ShapeDtypeStruct((2,), np.int8)}
    >>> one = np.int8([1, 2])
    >>> digests(specs, lambda name, at: one[at], location='here')['a'].dtype
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
    specs: what there is.
    names: what is wanted; None for all.
    location: of the checkpoint, for the error.

  Returns:
    The names.

  Raises:
    SeedError: if one is not there, with the nearest that is.

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
    names: that will be read.
    shardings: by name, or None.
    location: of the checkpoint, for the error.

  Raises:
    SeedError: naming those that have none.

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
  """Returns an array in another dtype, or itself.

  Args:
    array: any.
    dtype: None to leave it.

  Returns:
    The array.

  Example:
    >>> cast(np.ones(1), None).dtype, cast(np.ones(1), np.float32).dtype
    (dtype('float64'), dtype('float32'))
  """
  return array if dtype is None else array.astype(dtype, copy=False)


def whole(shape: tuple[int, ...]) -> Index:
  """Returns the index of everything.

  Args:
    shape: of the array.

  Returns:
    Slices with bounds.

  Example:
    >>> whole((2, 3))
    (slice(0, 2, None), slice(0, 3, None))
  """
  return tuple(slice(0, size) for size in shape)


def _needed(
  shape: tuple[int, ...], sharding: jax.sharding.Sharding | None
) -> set[Bounds]:
  """Returns the parts that this process holds, each once."""
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
  held: Mapping[Bounds, np.ndarray],
) -> jax.Array:
  return jax.make_array_from_callback(
    shape, sharding, lambda index: held[_bounds(index or (), shape)]
  )
