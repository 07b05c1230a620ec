"""From a train state to a delta checkpoint, and back.

`dst_t5x.checkpoint.delta_checkpoint` says what is in it. Everything there is
small and replicated, so a checkpoint fits every mesh; what is large is either
in the seed's own checkpoint or sharded as the parameters are.

Parameters, and the arrays of a checkpoint, are dicts by path; T5X's trees are
taken apart and put together where T5X hands them over.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from flax.linen import partitioning as flax_partitioning
from jax.sharding import PartitionSpec

from dst_t5x.arrays import paths
from dst_t5x.checkpoint import (
  delta_checkpoint,
  packing,
  resume_checks,
  saved_arrays,
  shards,
  unpacking,
)
from dst_t5x.checkpoint import manifest as manifest_lib
from dst_t5x.core import plans, selective
from dst_t5x.core.counting import Partitioning
from dst_t5x.core.shortfall import describe_shortfall
from dst_t5x.hooks import restored_dtypes, save_checks, state_dicts
from dst_t5x.hooks.optimizer import Selective
from dst_t5x.seeds.sharded import LoadSeed

# Fields of the method's state that are small; the others are rebuilt.
_SMALL = ('count', 'carry', 'nonfinite', 'key', 'metrics')


class _Parts(NamedTuple):
  """What a checkpoint is made of, in T5X's train state.

  Attributes:
    target: parameters by path.
    step: of T5X's count.
    kept: state of the method and of the inner optimizer.
    first: bool, the subset of the first step by path; () if it is not kept.
  """

  target: dict[str, Any]
  step: Any
  kept: selective.SelectiveState
  first: Any


class TrainKeeper:
  """Turns train states into delta checkpoints and back.

  Args:
    plan: of the run, with its partitioning.
    manifest: of the run.
    load_seed: reads the seed, sharded.
    fresh_inner: makes the inner optimizer's first state; used where the
      checkpoint holds none.
    optimizer_def: of the run; knows in which memory the seed is kept.

  Attributes:
    begun: whether the run has its parameters; T5X has made its checkpoint
      manager by then.
  """

  def __init__(
    self,
    plan: plans.Plan,
    manifest: Mapping[str, Any],
    load_seed: LoadSeed,
    fresh_inner: Callable[[Any], Any],
    optimizer_def: Selective,
  ):
    assert plan.partitioning is not None
    self.plan = plan
    self.silos, self.budgets = plan.silos, plan.budgets
    self.partitioning: Partitioning = plan.partitioning
    self.manifest = manifest
    self.load_seed = load_seed
    self._fresh_inner = fresh_inner
    self._optimizer_def = optimizer_def
    self._saves_inner = manifest['inner_state'] == 'full'
    self._warned = False
    self.begun = False

  def arrays(self, state: Any) -> dict[str, Any]:
    """Returns the checkpoint's arrays, or their shapes for a state of shapes.

    Args:
      state: T5X's train state.

    Returns:
      Arrays by their path in the checkpoint.

    Raises:
      NonFiniteParameterError, NonFiniteScoreError: if a parameter is, or a
        score was, NaN or infinite.
      RuntimeError: if a silo holds more than its budget.
    """
    target, step, kept, first = _parts(state)
    is_shape = isinstance(next(iter(target.values())), jax.ShapeDtypeStruct)
    if is_shape:
      packed = self._shapes(target, kept.masks, first)
      manifest: Any = manifest_lib.shape(self.manifest)
    else:
      save_checks.check_train_state(state)
      packed = self._extracted(target, kept.seed, kept.masks, first)
      self._check_budgets(packed)
      # On the devices: a resume restores them so, and Orbax notes which it is.
      replicated = functools.partial(shards.replicated, self.partitioning.mesh)
      packed = jax.tree.map(replicated, packed)
      manifest = manifest_lib.to_bytes(self.manifest)
      self._warn_of_shortfall(kept)
      if not self._saves_inner:
        logging.warning(
          'This checkpoint holds no state of the inner optimizer '
          "(inner_state='none'): a resume goes on from its weights only."
        )
    delta, held, opening = packed
    arrays: dict[str, Any] = {
      'state/step': step,
      delta_checkpoint.MANIFEST: manifest,
      **saved_arrays.to_arrays(self.silos, delta),
      **saved_arrays.to_arrays(self.silos, held, 'held_'),
      **saved_arrays.to_arrays(self.silos, opening, 'first_'),
    }
    for name in (*_SMALL, 'inner') if self._saves_inner else _SMALL:
      arrays |= state_dicts.placed(f'state/{name}', getattr(kept, name))
    return arrays

  def state_dict(self, state: Any) -> dict[str, Any]:
    """Returns `arrays` as the nested dict that T5X saves."""
    return paths.unflatten(self.arrays(state))

  def axes(self, state: Any) -> Any:
    """Returns the axes of `state_dict`, given a state of shapes.

    The inner optimizer's state alone is sharded, as in the train step.
    """
    axes: dict[str, Any] = dict.fromkeys(self.arrays(state), PartitionSpec())
    if self._saves_inner:
      axes |= state_dicts.placed('state/inner', train_axes(state).inner)
    return paths.unflatten(axes)

  def restore(self, state: Any, state_dict: Any) -> Any:
    """Returns the train state of a checkpoint, on top of the seed.

    Args:
      state: of shapes.
      state_dict: what T5X read.

    Returns:
      The train state.

    Raises:
      ManifestError: if another run wrote what was read.
    """
    arrays = paths.flatten(state_dict)
    self._check_read(state, arrays)
    _, _, shapes, first_shapes = _parts(state)
    seed = self.load_seed()
    delta = _in_dtypes_of(seed, self._packed(arrays), self.plan)
    held = self._packed(arrays, 'held_') if shapes.masks else ()
    first = self._packed(arrays, 'first_') if first_shapes else ()
    target, masks, opening = self._merge(seed, delta, held, first)
    params = state_dicts.with_leaves(state.params, target)

    def restored(name: str) -> Any:
      return state_dicts.restored(
        getattr(shapes, name),
        state_dicts.placed_in(f'state/{name}', arrays),
        origin='the checkpoint',
      )

    if self._saves_inner:
      inner = restored('inner')
    else:
      logging.warning(
        'Resuming from weights only: the checkpoint holds no state of the '
        "inner optimizer (inner_state='none'), which begins anew."
      )
      inner = self._fresh_inner(params)
    kept = shapes._replace(
      seed=self._stowed(seed),
      masks=masks,
      inner=inner,
      **{name: restored(name) for name in _SMALL},
    )
    logging.info(
      'Resuming DST after %d of its own steps.', int(np.asarray(kept.count))
    )
    self.begun = True
    optimizer = state._optimizer
    return state.replace(
      _optimizer=optimizer.replace(
        target=params,
        state=optimizer.state.replace(
          step=arrays['state/step'],
          param_states={'selective': kept, 'first': opening},
        ),
      )
    )

  def _check_read(self, state: Any, arrays: Mapping[str, Any]) -> None:
    """Raises unless this run wrote the arrays, wherever T5X read them."""
    if delta_checkpoint.MANIFEST not in arrays:
      raise manifest_lib.ManifestError(
        'what T5X restored is no delta checkpoint: bind '
        'utils.CheckpointConfig.restore = None, and TrainInitializer reads the '
        'seed from INITIAL_CHECKPOINT_PATH'
      )
    origin = 'the checkpoint that T5X restored'
    saved = manifest_lib.from_bytes(arrays[delta_checkpoint.MANIFEST], origin)
    resume_checks.check_same(self.manifest, saved, origin)
    expected = self.arrays(state)
    # Its own size depends on the release and on where the seed lies.
    del expected[delta_checkpoint.MANIFEST]
    resume_checks.check_arrays(expected, arrays, origin)

  def _shapes(self, target: Any, masks: Any, first: Any) -> Any:
    """Returns the shapes of `_extracted`, which T5X asks for at every save."""
    dtypes = {path: x.dtype for path, x in target.items()}
    shapes = functools.partial(packing.shapes, self.silos, self.budgets, dtypes)
    return (
      shapes(values=True),
      shapes(values=False) if masks else (),
      shapes(values=False) if first else (),
    )

  def _extracted(self, target: Any, seed: Any, masks: Any, first: Any) -> Any:
    """Returns the delta, the kept subset and that of the first step, packed."""
    where = self.silos, self.budgets, self.partitioning
    return (
      packing.pack(*where, target, seed),
      packing.pack_masks(*where, masks) if masks else (),
      packing.pack_masks(*where, first) if first else (),
    )

  def _stowed(self, seed: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns the seed in the memory in which it is kept during the run."""
    kind = self._optimizer_def.seed_memory_kind
    if kind is None:
      return seed
    return {
      path: jax.device_put(x, x.sharding.with_memory_kind(kind))
      for path, x in seed.items()
    }

  def _merge(self, seed: Any, delta: Any, held: Any, first: Any) -> Any:
    """Returns parameters and masks, partitioned as the seed is."""
    where = self.silos, self.partitioning
    return (
      unpacking.unpack(*where, delta, seed),
      unpacking.unpack_masks(*where, held, seed) if held else (),
      unpacking.unpack_masks(*where, first, seed) if first else (),
    )

  def _packed(self, arrays: Mapping[str, Any], prefix: str = '') -> Any:
    return saved_arrays.from_arrays(self.silos, self.budgets, arrays, prefix)

  def _warn_of_shortfall(self, kept: selective.SelectiveState) -> None:
    """Warns at the first checkpoint whose subset is smaller than its budget."""
    warning = '' if self._warned else describe_shortfall(self.plan, kept)
    if warning:
      self._warned = True
      logging.warning('%s', warning)

  def _check_budgets(self, packed: Any) -> None:
    for subset in packed:
      for name, k, silo in zip(
        self.silos.names, self.budgets, subset or (), strict=False
      ):
        count = int(np.asarray(silo.counts).sum())
        if count > k:
          raise RuntimeError(
            f'silo {name!r} differs from the seed in {count} positions, and '
            f'its budget is {k}: something other than the method changed the '
            'parameters. Nothing was saved'
          )


def train_axes(state: Any) -> Any:
  """Returns the logical axes of the method's state, given shapes."""
  optimizer = state._optimizer
  names = flax_partitioning.get_axis_names(state.params_axes)
  return optimizer.optimizer_def.derive_logical_axes(
    optimizer, names
  ).state.param_states['selective']


def _parts(state: Any) -> _Parts:
  optimizer = state._optimizer
  states = optimizer.state.param_states
  return _Parts(
    paths.named_leaves(optimizer.target),
    optimizer.state.step,
    states['selective'],
    states['first'],
  )


def _in_dtypes_of(seed: Any, delta: Any, plan: plans.Plan) -> Any:
  """Returns packed silos whose values have the dtypes of the seed."""
  return tuple(
    silo
    if isinstance(silo.values, tuple)
    else silo._replace(
      values=restored_dtypes.as_in_run(
        silo.values, seed[parts[0].path].dtype, name=f'the delta of {name!r}'
      )
    )
    for name, parts, silo in zip(
      plan.silos.names, packing.silo_parts(plan.silos), delta, strict=True
    )
  )
