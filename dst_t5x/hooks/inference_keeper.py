"""From a delta checkpoint and its seed to the parameters to infer with."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import PartitionSpec

from dst_t5x.arrays import paths
from dst_t5x.checkpoint import manifest as manifest_lib
from dst_t5x.checkpoint import packing, saved_arrays, unpacking
from dst_t5x.core.counting import Partitioning
from dst_t5x.hooks import state_dicts
from dst_t5x.seeds.sharded import LoadSeed


class InferenceKeeper:
  """Turns a delta checkpoint and the seed into parameters.

  Args:
    manifest: of the checkpoint.
    partitioning: of the parameters.
    load_seed: reads the seed, sharded.
  """

  def __init__(
    self,
    manifest: Mapping[str, Any],
    partitioning: Partitioning,
    load_seed: LoadSeed,
  ):
    self.partitioning = partitioning
    self.load_seed = load_seed
    self.silos, self.budgets = manifest_lib.silos_of(manifest)

  def state_dict(self, state: Any) -> dict[str, Any]:
    """Returns the shapes of what is read from a checkpoint."""
    params = paths.named_leaves(state.params)
    dtypes = {path: x.dtype for path, x in params.items()}
    packed = packing.shapes(self.silos, self.budgets, dtypes, values=True)
    return paths.unflatten(
      {'state/step': state.step, **saved_arrays.to_arrays(self.silos, packed)}
    )

  def axes(self, state: Any) -> Any:
    """Returns the axes of `state_dict`."""
    return jax.tree.map(lambda _: PartitionSpec(), self.state_dict(state))

  def restore(self, state: Any, state_dict: Any) -> Any:
    """Returns the state with the seed's parameters and the delta in them."""
    arrays = paths.flatten(state_dict)
    seed = self.load_seed()
    delta = saved_arrays.from_arrays(self.silos, self.budgets, arrays)
    dtypes = self._dtypes(delta, seed)

    @functools.partial(
      jax.jit, out_shardings={p: x.sharding for p, x in seed.items()}
    )
    def merge(seed: Any, delta: Any) -> Any:
      seed = {p: x.astype(dtypes[p]) for p, x in seed.items()}
      return unpacking.unpack(self.silos, self.partitioning, delta, seed)

    return state.replace(
      params=state_dicts.with_leaves(state.params, merge(seed, delta)),
      step=arrays['state/step'],
    )

  def _dtypes(self, delta: Any, seed: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the dtype of every parameter: that of its restored values.

    A host that restores another dtype casts all values to it; then the rest of
    the seed is cast as they were.
    """
    restored = {
      part.path: silo.values.dtype
      for silo, parts in zip(delta, packing.silo_parts(self.silos), strict=True)
      if not isinstance(silo.values, tuple)
      for part in parts
    }
    cast = {x for path, x in restored.items() if x != seed[path].dtype}
    return {
      path: restored.get(path, next(iter(cast), x.dtype))
      for path, x in seed.items()
    }
