"""Deltas in place: the same bits as copies, in the same buffers."""

import copy
import dataclasses

import hypothesis
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st

from dst_t5x import delta as delta_lib
from dst_t5x.arrays import paths
from dst_t5x.delta import resident

BF16 = ml_dtypes.bfloat16


def _seed() -> dict:
  rng = np.random.default_rng(0)
  kernel = rng.standard_normal((16, 24)).astype(np.float32)
  # Quiet and signalling NaN with payloads, infinity, −0.0, a denormal.
  kernel.view(np.uint32)[0, :5] = [
    0x7FC12345,
    0xFF812345,
    0x7F800000,
    0x80000000,
    0x00000001,
  ]
  narrow = rng.standard_normal((8, 4, 6)).astype(BF16)
  narrow.view(np.uint16)[0, 0, :4] = [0x7F81, 0xFFC1, 0x8000, 0x0001]
  return {
    'decoder': {'kernel': narrow},
    'encoder': {'kernel': kernel, 'scale': np.ones(32, np.float16)},
    'gain': np.full((), 2.0, np.float32),
    'mask': np.zeros(8, bool),
    'none': np.zeros((0, 4), np.float32),
    'table': rng.integers(-9, 9, (4, 3)).astype(np.int32),
  }


def _tuned(number: int) -> dict:
  rng = np.random.default_rng(number)
  tuned = copy.deepcopy(_seed())
  for leaf in jax.tree.leaves(tuned):
    flat = leaf.reshape(-1)
    chosen = rng.permutation(leaf.size)[: -(-leaf.size // 3)]
    flat[chosen] = (9 * rng.standard_normal(chosen.size)).astype(leaf.dtype)
  # Other payloads, quiet and signalling.
  bits = tuned['encoder']['kernel'].view(np.uint32)
  bits[0, :2] = [0x7F854321 + number, 0xFFC12345]
  tuned['decoder']['kernel'].view(np.uint16)[0, 0, :2] = [0xFF83, 0x7FC1]
  return tuned


SEED, A, B = _seed(), _tuned(1), _tuned(2)
DELTA_A, DELTA_B = (delta_lib.diff(SEED, tuned) for tuned in (A, B))
SPECS = {
  'one device': None,
  'replicated': {},
  'sharded': {
    'decoder/kernel': jax.P('y', None, 'x'),
    'encoder/kernel': jax.P('x', 'y'),
    'encoder/scale': jax.P(('x', 'y')),
    'mask': jax.P('y'),
    'table': jax.P('y', None),
  },
  'partly': {
    'decoder/kernel': jax.P(None, 'x', None),
    'encoder/kernel': jax.P(None, ('y', 'x')),
  },
}


def _on(kind: str) -> dict:
  specs = SPECS[kind]
  mesh = jax.make_mesh((2, 4), ('x', 'y'))
  device = jax.devices()[0]
  # A buffer that the backend made: it may share one that NumPy made, and does
  # not give that up.
  return paths.unflatten(
    {
      path: jnp.copy(
        jax.device_put(
          leaf,
          device
          if specs is None
          else jax.NamedSharding(mesh, specs.get(path, jax.P())),
        )
      )
      for path, leaf in paths.flatten(SEED).items()
    }
  )


def _expect(model: resident.Resident, expected: dict) -> None:
  """Every replica of every shard has the bits of the host's array."""
  flat = paths.flatten(model.params)
  assert flat.keys() == paths.flatten(expected).keys()
  for path, want in paths.flatten(expected).items():
    assert flat[path].dtype == want.dtype
    for shard in flat[path].addressable_shards:
      have = np.asarray(shard.data)
      assert have.tobytes() == want[shard.index].tobytes(), path


def _places(model: resident.Resident) -> dict:
  return {
    path: (
      leaf.sharding,
      [s.data.unsafe_buffer_pointer() for s in leaf.addressable_shards],
    )
    for path, leaf in paths.flatten(model.params).items()
    if leaf.ndim and leaf.size
  }


@pytest.mark.parametrize('kind', SPECS)
@pytest.mark.parametrize('verify', [True, False])
def test_apply_swap_and_revert(kind, verify):
  model = resident.Resident(_on(kind), verify=verify)
  shardings = jax.tree.map(lambda leaf: leaf.sharding, model.params)
  _expect(model, SEED)
  model.apply(DELTA_A)
  _expect(model, A)
  assert model.delta is DELTA_A
  model.swap(DELTA_B)
  _expect(model, B)
  model.swap(DELTA_A)
  _expect(model, A)
  model.revert()
  _expect(model, SEED)
  assert model.delta is None
  model.apply(DELTA_B)
  _expect(model, B)
  assert jax.tree.map(lambda leaf: leaf.sharding, model.params) == shardings


@pytest.mark.parametrize('kind', ['one device', 'sharded'])
def test_buffers_stay_and_old_arrays_are_gone(kind):
  params = _on(kind)
  held = paths.flatten(params)
  model = resident.Resident(params)
  before = _places(model)
  model.apply(DELTA_A)
  model.swap(DELTA_B)
  model.revert()
  after = _places(model)
  for path, (sharding, pointers) in before.items():
    assert after[path] == (sharding, pointers), path
    assert held[path].is_deleted(), path


def test_a_failed_change_changes_nothing():
  model = resident.Resident(_on('sharded'))
  forged = dataclasses.replace(
    DELTA_A.info, result_fingerprint='sha256:' + 64 * '0'
  )
  wrong = delta_lib.SubsetDelta(DELTA_A.entries, forged)
  with pytest.raises(delta_lib.ResultMismatchError, match='in place'):
    model.apply(wrong)
  _expect(model, SEED)
  model.apply(DELTA_B)
  with pytest.raises(delta_lib.ResultMismatchError, match='in place'):
    model.swap(wrong)
  _expect(model, B)
  model.revert()
  _expect(model, SEED)


def test_refusals():
  model = resident.Resident(_on('sharded'))
  with pytest.raises(delta_lib.NotAppliedError, match='no delta is applied'):
    model.revert()
  with pytest.raises(delta_lib.NotAppliedError, match='no delta is applied'):
    model.swap(DELTA_A)
  moved = copy.deepcopy(SEED)
  moved['table'][0, 0] += 1
  for change, match in ((0, 'differs elsewhere'), (1, 'another seed')):
    tuned = copy.deepcopy(moved)
    tuned['table'].reshape(-1)[1 - change] += 5
    with pytest.raises(delta_lib.WrongSeedError, match=match):
      model.apply(delta_lib.diff(moved, tuned))
  model.apply(DELTA_A)
  with pytest.raises(delta_lib.DeltaError, match='swap it'):
    model.apply(DELTA_B)
  tuned = copy.deepcopy(moved)
  tuned['gain'][()] = 5
  with pytest.raises(delta_lib.WrongSeedError, match='as a seed|the seed of'):
    model.swap(delta_lib.diff(moved, tuned))
  _expect(model, A)
  with pytest.raises(delta_lib.DeltaError, match='ndarray; only JAX'):
    resident.Resident(SEED)
  unknown = delta_lib.diff({'x': np.ones(2)}, {'x': np.zeros(2)})
  with pytest.raises(delta_lib.DeltaError):
    model.swap(unknown)
  _expect(model, A)


_words = st.dictionaries(
  st.integers(0, 15), st.integers(0, 2**16 - 1), max_size=16
)


@hypothesis.settings(max_examples=20)
@hypothesis.given(st.lists(_words, min_size=1, max_size=4))
def test_any_bits_and_any_order_of_swaps(changes):
  """bfloat16 seeds of NaN, into which every bit pattern may be put."""
  seed = {'w': np.full(16, 0x7F81, np.uint16).view(BF16)}
  mesh = jax.make_mesh((4,), ('x',))
  placed = jnp.copy(
    jax.device_put(seed['w'], jax.NamedSharding(mesh, jax.P('x')))
  )
  model = resident.Resident({'w': placed})
  for number, change in enumerate(changes):
    tuned = {'w': seed['w'].copy()}
    for at, word in change.items():
      tuned['w'].view(np.uint16)[at] = word
    found = delta_lib.diff(seed, tuned)
    if number:
      model.swap(found)
    else:
      model.apply(found)
    assert np.asarray(model.params['w']).tobytes() == tuned['w'].tobytes()
  model.revert()
  assert np.asarray(model.params['w']).tobytes() == seed['w'].tobytes()
