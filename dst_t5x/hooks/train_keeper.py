"""From a train state to a delta checkpoint, and back.

`dst_t5x.checkpoint.delta_checkpoint` tells what is in it. Everything there is
small and replicated, so a checkpoint fits every mesh; what is large is either
in the seed's own checkpoint or sharded as the parameters are.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import traverse_util
from flax.linen import partitioning as flax_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from dst_t5x.arrays import bit_types
from dst_t5x.arrays.paths import named_leaves
from dst_t5x.checkpoint import manifest as manifest_lib
from dst_t5x.checkpoint import packing, saved_arrays, unpacking
from dst_t5x.core import plans, selective
from dst_t5x.core.counting import Partitioning
from dst_t5x.hooks import state_dicts
from dst_t5x.hooks.optimizer import Selective
from dst_t5x.seeds.sharded import LoadSeed

# Fields of the method's state that are small; the others are rebuilt.
_SMALL = ('count', 'carry', 'nonfinite', 'key', 'metrics')


class TrainKeeper:
  """Turns train states into delta checkpoints and back.

  Args:
    plan: of the run, with its partitioning.
    manifest: of the run.
    load_seed: reads the seed, sharded.
    fresh_inner: makes the inner optimizer's first state; used where the
      checkpoint holds none.
    optimizer_def: of the run; knows in which memory the seed is kept.
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
    self._full = manifest['inner_state'] == 'full'
    replicated = NamedSharding(self.partitioning.mesh, PartitionSpec())
    self._extract = jax.jit(self._extracted, out_shardings=replicated)

  def state_dict(self, state: Any) -> dict[str, Any]:
    """Returns the checkpoint's arrays, or their shapes for a state of shapes.

    Raises:
      NonFiniteScoreError: if a score was NaN or infinite.
      RuntimeError: if a silo holds more than its budget.
    """
    target, step, kept, first = _parts(state)
    is_shape = isinstance(jax.tree.leaves(target)[0], jax.ShapeDtypeStruct)
    if is_shape:
      packed = self._shapes(target, kept, first)
      manifest: Any = manifest_lib.shape(self.manifest)
    else:
      selective.raise_if_invalid(self.plan, kept)
      packed = self._extract(target, kept, first)
      self._check(packed)
      manifest = manifest_lib.to_bytes(self.manifest)
      if not self._full:
        logging.warning(
          'This checkpoint holds no state of the inner optimizer '
          "(inner_state='none'): a resume goes on from its weights only."
        )
    delta, held, opening = packed
    saved: dict[str, Any] = {
      'step': step,
      'manifest': manifest,
      **saved_arrays.to_arrays(self.silos, delta),
      **saved_arrays.to_arrays(self.silos, held, 'held_'),
      **saved_arrays.to_arrays(self.silos, opening, 'first_'),
    }
    for name in _SMALL:
      saved[name] = _nested(getattr(kept, name))
    if self._full:
      saved['inner'] = _nested(kept.inner)
    return {'target': saved.pop('values'), 'state': saved}

  def axes(self, state: Any) -> Any:
    """Returns the axes of `state_dict`, given a state of shapes.

    The inner optimizer's state alone is sharded, as in the train step.
    """
    shapes = self.state_dict(state)
    replicated = PartitionSpec()
    axes = jax.tree.map(lambda _: replicated, shapes)
    if self._full:
      dense = train_axes(state)
      inner = state_dicts.flat(dense.inner)
      axes['state']['inner'] = _unflat(
        {
          path: inner[path] if inner[path] is not None else replicated
          for path in state_dicts.flat(kept_inner(state))
        }
      )
    return axes

  def restore(self, state: Any, state_dict: Any) -> Any:
    """Returns the train state of a checkpoint, on top of the seed."""
    saved = state_dict['state']
    _, _, shapes, first_shapes = _parts(state)
    seed = self.load_seed()
    delta = self._packed(state_dict)
    _check_dtypes(delta, seed, self.plan)
    held = self._packed(state_dict, 'held_') if shapes.masks else ()
    first = self._packed(state_dict, 'first_') if first_shapes else ()
    target, masks, opening = self._merge(seed, delta, held, first)
    params = saved_arrays.like(state.params, target)
    small = {
      name: state_dicts.restored(
        getattr(shapes, name),
        state_dicts.flat(saved[name]),
        origin='the checkpoint',
      )
      for name in _SMALL
    }
    if self._full:
      inner = state_dicts.restored(
        shapes.inner, state_dicts.flat(saved['inner']), origin='the checkpoint'
      )
    else:
      logging.warning(
        'Resuming from weights only: the checkpoint holds no state of the '
        "inner optimizer (inner_state='none'), which begins anew."
      )
      inner = self._fresh_inner(params)
    kept = shapes._replace(
      seed=saved_arrays.like(state.params, self._stowed(seed)),
      masks=masks,
      inner=inner,
      **small,
    )
    logging.info(
      'Resuming DST after %d of its own steps.', int(np.asarray(kept.count))
    )
    optimizer = state._optimizer
    return state.replace(
      _optimizer=optimizer.replace(
        target=params,
        state=optimizer.state.replace(
          step=saved['step'],
          param_states={'selective': kept, 'first': opening},
        ),
      )
    )

  def _shapes(self, target: Any, kept: Any, first: Any) -> Any:
    """Returns the shapes of `_extracted`, which T5X asks for at every save."""
    dtypes = {path: x.dtype for path, x in named_leaves(target).items()}
    shapes = functools.partial(packing.shapes, self.silos, self.budgets, dtypes)
    return (
      shapes(values=True),
      shapes(values=False) if kept.masks else (),
      shapes(values=False) if first else (),
    )

  def _extracted(self, target: Any, kept: Any, first: Any) -> Any:
    plan, partitioning = self.plan, self.partitioning
    now = named_leaves(target)
    seed = named_leaves(self._optimizer_def.seed_on_device(kept.seed))
    changed = {path: _differ(now[path], seed[path]) for path in now}
    pack = functools.partial(
      packing.pack, plan.silos, plan.budgets, partitioning
    )
    return (
      pack(changed, now),
      pack(kept.masks) if kept.masks else (),
      pack(first) if first else (),
    )

  def _stowed(self, seed: dict[str, jax.Array]) -> dict[str, jax.Array]:
    kind = self._optimizer_def.seed_memory_kind
    if kind is None:
      return seed
    return {
      path: jax.device_put(x, x.sharding.with_memory_kind(kind))
      for path, x in seed.items()
    }

  def _merge(self, seed: Any, delta: Any, held: Any, first: Any) -> Any:
    shardings = {p: x.sharding for p, x in seed.items()}

    @functools.partial(
      jax.jit,
      out_shardings=(
        shardings,
        shardings if held else (),
        shardings if first else (),
      ),
    )
    def merge(seed: Any, delta: Any, held: Any, first: Any) -> Any:
      unpack = functools.partial(
        unpacking.unpack, self.plan.silos, self.partitioning
      )
      none = {p: jnp.zeros(x.shape, jnp.bool_) for p, x in seed.items()}
      return (
        unpack(delta, seed),
        unpack(held, none) if held else (),
        unpack(first, none) if first else (),
      )

    return merge(seed, delta, held, first)

  def _packed(self, state_dict: Any, prefix: str = '') -> Any:
    return saved_arrays.from_arrays(
      self.silos, self.budgets, state_dict, prefix
    )

  def _check(self, packed: Any) -> None:
    for each in packed:
      for name, k, silo in zip(
        self.plan.silos.names, self.plan.budgets, each or (), strict=False
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


def kept_inner(state: Any) -> Any:
  """Returns the inner optimizer's state in a train state."""
  return state._optimizer.state.param_states['selective'].inner


def _parts(state: Any) -> tuple[Any, Any, Any, Any]:
  optimizer = state._optimizer
  states = optimizer.state.param_states
  return (
    optimizer.target,
    optimizer.state.step,
    states['selective'],
    states['first'],
  )


def _differ(a: jax.Array, b: jax.Array) -> jax.Array:
  """Returns where the bits differ: −0.0 is not 0.0, a NaN equals itself."""
  kind = bit_types.unsigned(a.dtype)
  as_bits = functools.partial(jax.lax.bitcast_convert_type, new_dtype=kind)
  return as_bits(a) != as_bits(b)


def _check_dtypes(delta: Any, seed: Any, plan: Any) -> None:
  for name, inside, silo in zip(
    plan.silos.names, packing.entries(plan.silos), delta, strict=True
  ):
    if isinstance(silo.values, tuple):
      continue
    wanted = seed[inside[0].path].dtype
    if silo.values.dtype != wanted:
      raise ValueError(
        f'the values of silo {name!r} were restored as {silo.values.dtype}, '
        f'and the seed is {wanted}: bind utils.SaveCheckpointConfig.dtype = '
        f"'{wanted}', which is also what a resume restores"
      )


def _nested(tree: Any) -> Any:
  found = {p: x for p, x in state_dicts.flat(tree).items() if x is not None}
  return found[''] if set(found) == {''} else _unflat(found)


def _unflat(flat: Mapping[str, Any]) -> Any:
  return traverse_util.unflatten_dict(dict(flat), sep='/')
