"""What a delta checkpoint holds, and the way there and back.

The layout is told in `dst_t5x.delta_checkpoint`. Everything in it is small and
replicated, so a checkpoint fits every mesh; what is large is either in the
seed's own checkpoint or sharded as the parameters are.
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

from dst_t5x import plans, selective
from dst_t5x.counting import Layout
from dst_t5x.delta_checkpoint import key
from dst_t5x.hooks import manifest as manifest_lib
from dst_t5x.hooks import packing, state_dicts
from dst_t5x.paths import named_leaves
from dst_t5x.silos import Placement, Silos

# Fields of the method's state that are small; the others are rebuilt.
_SMALL = ('count', 'carry', 'nonfinite', 'key', 'metrics')

LoadSeed = Callable[[], dict[str, jax.Array]]


class TrainKeeper:
  """Turns train states into delta checkpoints and back.

  Args:
    plan: of the run, with its layout.
    manifest: of the run.
    load_seed: reads the seed, sharded.
    fresh_inner: makes the inner optimizer's first state; used where the
      checkpoint holds none.
  """

  def __init__(
    self,
    plan: plans.Plan,
    manifest: Mapping[str, Any],
    load_seed: LoadSeed,
    fresh_inner: Callable[[Any], Any],
  ):
    assert plan.layout is not None
    self.plan = plan
    self.silos, self.budgets = plan.silos, plan.budgets
    self.layout: Layout = plan.layout
    self.manifest = manifest
    self.load_seed = load_seed
    self._fresh_inner = fresh_inner
    self._full = manifest['inner_state'] == 'full'
    replicated = NamedSharding(self.layout.mesh, PartitionSpec())
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
      packed = jax.eval_shape(self._extracted, target, kept, first)
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
      **_packed_dict(self.silos, '', delta),
      **_packed_dict(self.silos, 'held_', held),
      **_packed_dict(self.silos, 'first_', opening),
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
    delta = _packed_from(self, '', state_dict)
    _check_dtypes(delta, seed, self.plan)
    held = _packed_from(self, 'held_', state_dict) if shapes.masks else ()
    first = _packed_from(self, 'first_', state_dict) if first_shapes else ()
    target, masks, opening = self._merge(seed, delta, held, first)
    params = like(state.params, target)
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
      seed=like(state.params, seed), masks=masks, inner=inner, **small
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

  def _extracted(self, target: Any, kept: Any, first: Any) -> Any:
    plan, layout = self.plan, self.layout
    now, seed = named_leaves(target), named_leaves(kept.seed)
    changed = {path: _differ(now[path], seed[path]) for path in now}
    pack = functools.partial(packing.pack, plan.silos, plan.budgets, layout)
    return (
      pack(changed, now),
      pack(kept.masks) if kept.masks else (),
      pack(first) if first else (),
    )

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
      unpack = functools.partial(packing.unpack, self.plan.silos, self.layout)
      none = {p: jnp.zeros(x.shape, jnp.bool_) for p, x in seed.items()}
      return (
        unpack(delta, seed),
        unpack(held, none) if held else (),
        unpack(first, none) if first else (),
      )

    return merge(seed, delta, held, first)

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


class InferenceKeeper:
  """Turns a delta checkpoint and the seed into parameters.

  Args:
    manifest: of the checkpoint.
    layout: of the parameters.
    load_seed: reads the seed, sharded.
  """

  def __init__(
    self, manifest: Mapping[str, Any], layout: Layout, load_seed: LoadSeed
  ):
    self.manifest = manifest
    self.layout = layout
    self.load_seed = load_seed
    self.silos, self.budgets = silos_of(manifest)

  def state_dict(self, state: Any) -> dict[str, Any]:
    """Returns the shapes of what is read from a checkpoint."""
    dtypes = {p: x.dtype for p, x in named_leaves(state.params).items()}
    packed = packing.shapes(self.silos, self.budgets, dtypes, values=True)
    saved = _packed_dict(self.silos, '', packed)
    values = saved.pop('values')
    return {'target': values, 'state': {'step': state.step, **saved}}

  def axes(self, state: Any) -> Any:
    """Returns the axes of `state_dict`."""
    return jax.tree.map(lambda _: PartitionSpec(), self.state_dict(state))

  def restore(self, state: Any, state_dict: Any) -> Any:
    """Returns the state with the seed's parameters and the delta in them."""
    seed = self.load_seed()
    delta = _packed_from(self, '', state_dict)
    # A host that restores another dtype gets the seed rounded like the values.
    wanted = next((p.values.dtype for p in delta if p.values.size), None)

    @functools.partial(
      jax.jit, out_shardings={p: x.sharding for p, x in seed.items()}
    )
    def merge(seed: Any, delta: Any) -> Any:
      if wanted is not None:
        seed = {p: x.astype(wanted) for p, x in seed.items()}
      return packing.unpack(self.silos, self.layout, delta, seed)

    return state.replace(
      params=like(state.params, merge(seed, delta)),
      step=state_dict['state']['step'],
    )


def silos_of(manifest: Mapping[str, Any]) -> tuple[Silos, tuple[int, ...]]:
  """Returns the silos that a manifest tells of, and their budgets.

  Args:
    manifest: of a checkpoint.

  Returns:
    The silos, and k of each (count).
  """
  ids: dict[str, list[int]] = {path: [] for path in manifest['parameters']}
  axes: dict[str, int | None] = {}
  for number, (_, _, inside) in enumerate(manifest['silos']):
    for path, index, axis in inside:
      assert index is None or index == len(ids[path])
      ids[path].append(number)
      axes[path] = axis
  shapes = {p: tuple(s) for p, (_, s) in manifest['parameters'].items()}
  sizes = [0] * len(manifest['silos'])
  for path, numbers in ids.items():
    for number in numbers:
      sizes[number] += int(np.prod(shapes[path], dtype=np.int64)) // len(
        numbers
      )
  return (
    Silos(
      tuple(name for name, _, _ in manifest['silos']),
      tuple(sizes),
      {p: Placement(tuple(n), axes[p]) for p, n in ids.items()},
    ),
    tuple(k for _, k, _ in manifest['silos']),
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
  kind = jnp.dtype(f'uint{8 * a.dtype.itemsize}')
  as_bits = functools.partial(jax.lax.bitcast_convert_type, new_dtype=kind)
  return as_bits(a) != as_bits(b)


def _packed_dict(silos: Silos, prefix: str, packed: Any) -> dict[str, Any]:
  """Returns the arrays of all silos with a budget, by kind and silo."""
  arrays: dict[str, dict[str, Any]] = {}
  for name, silo in zip(silos.names if packed else (), packed, strict=True):
    if not silo.positions.shape[0]:
      continue
    for kind in ('positions', 'values', 'counts'):
      leaf = getattr(silo, kind)
      if not isinstance(leaf, tuple):
        arrays.setdefault(prefix + kind, {})[key(name)] = leaf
  return arrays


def _packed_from(keeper: Any, prefix: str, state_dict: Any) -> Any:
  silos, budgets = keeper.silos, keeper.budgets
  saved = state_dict['state']
  entries = packing.entries(silos)
  packed = []
  for name, k, inside in zip(silos.names, budgets, entries, strict=True):
    if not k:
      nothing = jnp.zeros(0, jnp.int32)
      packed.append(
        packing.Packed(nothing, (), jnp.zeros(len(inside), jnp.int32))
      )
      continue
    packed.append(
      packing.Packed(
        saved[prefix + 'positions'][key(name)],
        () if prefix else state_dict['target'][key(name)],
        saved[prefix + 'counts'][key(name)],
      )
    )
  return tuple(packed)


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


def like(tree: Any, named: Mapping[str, Any]) -> Any:
  """Returns a tree of the same structure with leaves by path."""
  return jax.tree.unflatten(
    jax.tree.structure(tree), [named[path] for path in named_leaves(tree)]
  )
