"""Orbax checkpoints: those of T5X, and plain trees of parameters.

T5X keeps the parameters under `target` of the item `state`, beside the state of
the optimizer, which is never read here.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import numpy as np

from dst_t5x.arrays import dtypes, fingerprints, paths
from dst_t5x.seeds import folders, tensor_reading
from dst_t5x.seeds.errors import SeedError

LAYOUT = 'orbax'
# Where an item may lie in a checkpoint: itself, T5X's, Orbax's own.
ITEMS = ('', 'state', 'default', 'params', 'items')
# Where the parameters may lie in an item, and the step beside them.
_PREFIXES = (('target', ('state', 'step')), ('params', ('step',)))
_FILES = ('_METADATA', 'manifest.ocdbt')


@dataclasses.dataclass(frozen=True)
class OrbaxSource:
  """An opened Orbax checkpoint; see `source.Source`.

  Attributes:
    item: the folder of the item that holds the parameters.
    prefix: keys of the item's tree above the parameters.
    tensors: shape and dtype by path.
  """

  location: str
  item: str
  prefix: tuple[str, ...]
  tensors: Mapping[str, jax.ShapeDtypeStruct]
  step: int | None
  layout: str = LAYOUT
  config: dict[str, Any] | None = None

  def specs(self) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shape and dtype of every parameter."""
    return dict(self.tensors)

  def read(
    self,
    shardings: Mapping[str, jax.sharding.Sharding] | None = None,
    dtype: Any = None,
    names: Collection[str] | None = None,
  ) -> dict[str, Any]:
    """Reads parameters; see `source.Source`."""
    import orbax.checkpoint as ocp

    wanted = tensor_reading.check_names(self.tensors, names, self.location)
    tensor_reading.check_shardings(wanted, shardings, self.location)
    arguments = {}
    for name in wanted:
      stored = self.tensors[name]
      arguments[name] = (
        ocp.RestoreArgs(restore_type=np.ndarray, dtype=dtype or stored.dtype)
        if shardings is None
        else ocp.ArrayRestoreArgs(
          sharding=shardings[name],
          global_shape=stored.shape,
          dtype=dtype or stored.dtype,
        )
      )
    return self._restore(arguments)

  def digests(
    self, names: Collection[str] | None = None
  ) -> dict[str, fingerprints.TensorDigest]:
    """Hashes parameters one by one; see `source.Source`."""
    wanted = tensor_reading.check_names(self.tensors, names, self.location)
    return {
      name: fingerprints.digest(self.read(names=[name])[name], name)
      for name in wanted
    }

  def _restore(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
    if not arguments:
      return {}
    nested = _under(self.prefix, paths.unflatten(arguments))
    restored = restore(self.item, nested, self.location)
    for key in self.prefix:
      restored = restored[key]
    return paths.flatten(restored)


def open_source(location: str) -> OrbaxSource:
  """Opens an Orbax checkpoint.

  Args:
    location: of a checkpoint, such as T5X's `checkpoint_1000`, or of one item
      in it; path or URL.

  Returns:
    The source.

  Raises:
    SeedError: if there is none, or it holds no parameters.

  Example:
    >>> open_source('no/such/folder')
    Traceback (most recent call last):
    ...
    dst_t5x.seeds.errors.SeedError: no/such/folder is no Orbax \
    checkpoint: it lacks _METADATA
  """
  found = item_of(location)
  if found is None:
    raise SeedError(f'{location} is no Orbax checkpoint: it lacks _METADATA')
  tree = metadata(found, location)
  if 'manifest' in (tree.get('state') or ()):
    raise SeedError(
      f'{location} is a delta checkpoint, not a seed: give the seed that it '
      'was trained from, or write the whole model with dst-t5x delta merge'
    )
  prefix, step_at = (), ('step',)
  for name, step_path in _PREFIXES:
    if isinstance(tree.get(name), Mapping):
      prefix, step_at = (name,), step_path
      break
  target = tree[prefix[0]] if prefix else tree
  return OrbaxSource(
    location,
    found,
    prefix,
    _specs(target, location),
    _step(found, tree, step_at, location) if prefix else None,
  )


def item_of(location: str) -> str | None:
  """Returns the item of an Orbax checkpoint that can hold parameters.

  Args:
    location: of the checkpoint, or of the item itself.

  Returns:
    Path or URL of the item's folder; None if there is none.

  Example:
    >>> item_of('no/such/checkpoint') is None
    True
  """
  for item in ITEMS:
    folder = folders.join(location, item) if item else location
    if any(folders.read_file(folder, name) is not None for name in _FILES):
      return folder
  return None


def metadata(item: str, location: str) -> Mapping[str, Any]:
  """Returns what an item holds, nested, with shapes and dtypes as leaves.

  Args:
    item: its folder.
    location: of the checkpoint, for errors.

  Returns:
    Nested dict.

  Raises:
    SeedError: if it cannot be read, or holds no dictionary.
  """
  tree = _guarded(lambda handler, path: handler.metadata(path), item, location)
  tree = getattr(tree, 'tree', tree)
  if not isinstance(tree, Mapping) or not tree:
    raise SeedError(
      f'the seed {location} holds a {type(tree).__name__} instead of a '
      'dictionary of parameters'
    )
  return tree


def _specs(
  target: Mapping[str, Any], location: str
) -> dict[str, jax.ShapeDtypeStruct]:
  try:
    flat = paths.flatten(target)
  except ValueError as error:
    raise SeedError(f'the seed {location}: {error}') from error
  specs = {}
  for name, leaf in flat.items():
    shape, dtype = getattr(leaf, 'shape', None), getattr(leaf, 'dtype', None)
    if dtype is None or np.dtype(dtype).name not in dtypes.DTYPES:
      raise SeedError(
        f'the seed {location}: {name!r} is no array of a supported dtype but '
        f'{leaf!r}'
      )
    specs[name] = jax.ShapeDtypeStruct(tuple(shape or ()), np.dtype(dtype))
  if not specs:
    raise SeedError(f'the seed {location} holds no parameters')
  return specs


def _step(
  item: str, tree: Mapping[str, Any], keys: tuple[str, ...], location: str
) -> int | None:
  import orbax.checkpoint as ocp

  leaf: Any = tree
  for key in keys:
    leaf = leaf.get(key) if isinstance(leaf, Mapping) else None
  if leaf is None:
    return None
  argument: Any = ocp.RestoreArgs(restore_type=np.ndarray)
  value = restore(item, _under(keys, argument), location)
  for key in keys:
    value = value[key]
  return int(np.asarray(value))


def restore(item: str, arguments: Mapping[str, Any], location: str) -> Any:
  """Reads a part of an item.

  Args:
    item: its folder.
    arguments: Orbax's restore arguments, nested as the part to read.
    location: of the checkpoint, for errors.

  Returns:
    Arrays, nested as the arguments.

  Raises:
    SeedError: if it cannot be read.
  """
  import orbax.checkpoint as ocp

  args = ocp.args.PyTreeRestore(
    item=jax.tree.map(lambda _: 0, arguments),
    restore_args=arguments,
    partial_restore=True,
  )
  return _guarded(
    lambda handler, path: handler.restore(path, args=args), item, location
  )


def _guarded(
  action: Callable[[Any, Any], Any], item: str, location: str
) -> Any:
  import orbax.checkpoint as ocp
  from etils import epath

  handler = ocp.PyTreeCheckpointHandler()
  try:
    # Orbax takes no relative path.
    path = item if folders.is_remote(item) else os.path.abspath(item)
    return action(handler, epath.Path(path))
  # Damaged files fail in Orbax, TensorStore, JSON or asyncio.
  except Exception as error:
    raise SeedError(
      f'cannot read the seed {location}: {type(error).__name__}: {error}'
    ) from error
  finally:
    handler.close()


def _under(prefix: tuple[str, ...], tree: Any) -> Any:
  return functools.reduce(lambda t, key: {key: t}, reversed(prefix), tree)
