"""From a delta checkpoint and its seed to the parameters to infer with."""

from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import PartitionSpec

from dst_t5x.arrays import paths
from dst_t5x.checkpoint import (
  delta_checkpoint,
  packing,
  resume_checks,
  saved_arrays,
  unpacking,
)
from dst_t5x.checkpoint import manifest as manifest_lib
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
    self.manifest = manifest
    self.silos, self.budgets = manifest_lib.silos_of(manifest)

  def state_dict(self, state: Any) -> dict[str, Any]:
    """Returns the shapes of what is read from a checkpoint."""
    params = paths.named_leaves(state.params)
    dtypes = {path: x.dtype for path, x in params.items()}
    packed = packing.shapes(self.silos, self.budgets, dtypes, values=True)
    return paths.unflatten(
      {
        'state/step': state.step,
        delta_checkpoint.MANIFEST: manifest_lib.shape(self.manifest),
        **saved_arrays.to_arrays(self.silos, packed),
      }
    )

  def axes(self, state: Any) -> Any:
    """Returns the axes of `state_dict`."""
    return jax.tree.map(lambda _: PartitionSpec(), self.state_dict(state))

  def restore(self, state: Any, state_dict: Any) -> Any:
    """Returns the state with the seed's parameters and the delta in them.

    Args:
      state: of shapes.
      state_dict: what T5X read.

    Returns:
      The state.

    Raises:
      ManifestError: if it was not read from the checkpoint of the manifest.
    """
    arrays = paths.flatten(state_dict)
    self._check_read(state, arrays)
    seed = self.load_seed()
    delta = saved_arrays.from_arrays(self.silos, self.budgets, arrays)
    dtypes = self._dtypes(delta, seed)

    params = unpacking.unpack(
      self.silos, self.partitioning, delta, seed, dtypes=dtypes
    )
    return state.replace(
      params=state_dicts.with_leaves(state.params, params),
      step=arrays['state/step'],
    )

  def _check_read(self, state: Any, arrays: Mapping[str, Any]) -> None:
    origin = 'the checkpoint that T5X restored (RestoreCheckpointConfig.path)'
    saved = manifest_lib.from_bytes(arrays[delta_checkpoint.MANIFEST], origin)
    if saved != self.manifest:
      raise manifest_lib.ManifestError(
        f'{origin} is not of the run that InferenceInitializer.checkpoint_path '
        'names; bind both to CHECKPOINT_PATH'
      )
    expected = paths.flatten(self.state_dict(state))
    resume_checks.check_arrays(expected, arrays, origin)

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
