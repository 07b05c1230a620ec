"""Deltas: exact in both directions, on every kind of array, or refused."""

import copy
import dataclasses
import struct
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st

from dst_t5x import delta as delta_lib
from dst_t5x import seeds
from dst_t5x.arrays import flat_access, paths
from dst_t5x.delta import difference, types

BF16 = ml_dtypes.bfloat16
HASH = 'sha256:' + 64 * '0'
# Takes more than its annotations say: lists, names of dtypes.
Entry: Any = delta_lib.DeltaEntry


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
  return {
    'decoder': {'kernel': rng.standard_normal((8, 4, 6)).astype(BF16)},
    'encoder': {'kernel': kernel, 'scale': np.ones(33, np.float16)},
    'gain': np.float32(2.0).reshape(()),
    'none': np.zeros((0, 4), np.float32),
    'table': rng.integers(-9, 9, (5, 3)).astype(np.int32),
  }


def _tuned(number: int) -> dict:
  """The seed with a third of everything changed, specials among it."""
  rng = np.random.default_rng(number)
  tuned = copy.deepcopy(_seed())
  for leaf in jax.tree.leaves(tuned):
    flat = leaf.reshape(-1)
    chosen = rng.permutation(leaf.size)[: -(-leaf.size // 3)]
    flat[chosen] = (9 * rng.standard_normal(chosen.size)).astype(leaf.dtype)
  bits = tuned['encoder']['kernel'].view(np.uint32)
  # Another payload, a quiet one, a finite number, 0.0, −0.0 for a denormal.
  bits[0, :5] = [0x7FC54321, 0xFFC12345, 0x3F800000, 0, 0x80000000]
  bits[1, :2] = [0x00000003, 0x80000000]
  return tuned


SEED, A, B = _seed(), _tuned(1), _tuned(2)


def _on(kind: str, tree: dict) -> dict:
  """The tree as arrays of a kind."""
  if kind == 'numpy':
    return copy.deepcopy(tree)
  if kind == 'fortran':
    return jax.tree.map(lambda a: np.array(a, order='F'), tree)
  if kind == 'big-endian':
    return jax.tree.map(
      lambda a: a if a.dtype == BF16 else a.astype(a.dtype.newbyteorder('>')),
      tree,
    )
  if kind == 'jax':
    return jax.tree.map(jnp.asarray, tree)
  mesh = jax.make_mesh((2, 4), ('x', 'y'))
  specs = {
    'decoder/kernel': jax.P('y', None, 'x'),
    'encoder/kernel': jax.P('x', 'y'),
    'table': jax.P(None, None),
  }
  if kind == 'sharded otherwise':
    specs = {'encoder/kernel': jax.P(None, ('y', 'x'))}
  return paths.unflatten(
    {
      path: jax.device_put(
        leaf, jax.NamedSharding(mesh, specs.get(path, jax.P()))
      )
      for path, leaf in paths.flatten(tree).items()
    }
  )


KINDS = [
  'numpy',
  'fortran',
  'big-endian',
  'jax',
  'sharded',
  'sharded otherwise',
]


def _assert_same(found, expected):
  found, expected = paths.flatten(found), paths.flatten(expected)
  assert found.keys() == expected.keys()
  for path, want in expected.items():
    have = found[path]
    assert have.shape == want.shape, path
    assert np.dtype(have.dtype).name == want.dtype.name, path
    have = np.asarray(have).astype(want.dtype)
    assert have.tobytes() == want.tobytes(), path


def _assert_like(found, given):
  """Same kinds of arrays, lying in the same places."""
  for new, old in zip(
    jax.tree.leaves(found), jax.tree.leaves(given), strict=True
  ):
    assert isinstance(new, jax.Array) == isinstance(old, jax.Array)
    if isinstance(old, jax.Array):
      assert new.sharding == old.sharding


# Taking a delta.


def test_diff_finds_what_struct_finds():
  delta = delta_lib.diff(SEED, A)
  assert list(delta.entries) == list(paths.flatten(SEED))
  tuned = paths.flatten(A)
  for path, old in paths.flatten(SEED).items():
    width = old.dtype.itemsize
    before, after = old.tobytes(), tuned[path].tobytes()
    entry = delta.entries[path]
    assert (entry.shape, entry.dtype) == (old.shape, old.dtype)
    expected = [
      i
      for i in range(old.size)
      if before[i * width : (i + 1) * width]
      != after[i * width : (i + 1) * width]
    ]
    assert entry.positions.tolist() == expected, path
    assert entry.values.tobytes() == b''.join(
      after[i * width : (i + 1) * width] for i in expected
    )


@pytest.mark.parametrize('kind', KINDS)
def test_diff_is_the_same_for_every_kind_of_array(kind):
  assert delta_lib.diff(_on(kind, SEED), _on(kind, A)) == delta_lib.diff(
    SEED, A
  )


def test_diff_goes_on_beyond_a_chunk(monkeypatch):
  whole = delta_lib.diff(SEED, A)
  monkeypatch.setattr(difference, '_CHUNK', 5)
  assert delta_lib.diff(SEED, A) == whole


def test_diff_says_where_it_came_from():
  info = delta_lib.diff(
    SEED, A, method='dst', epsilon=0.25, silo_rule='tensor', step=7
  ).info
  assert (info.method, info.epsilon, info.budget) == ('dst', 0.25, None)
  assert (info.silo_rule, info.step) == ('tensor', 7)
  assert info.seed_fingerprint == seeds.fingerprint(SEED)
  assert info.result_fingerprint == seeds.fingerprint(A)


def test_equal_parameters_give_an_empty_delta():
  delta = delta_lib.diff(SEED, copy.deepcopy(SEED))
  assert delta.size == 0
  _assert_same(delta_lib.apply(SEED, delta), SEED)


def test_everything_may_differ():
  seed, tuned = {'a': np.zeros((3, 4))}, {'a': np.ones((3, 4))}
  delta = delta_lib.diff(seed, tuned, epsilon=1.0)
  assert delta.entries['a'].positions.tolist() == list(range(12))
  _assert_same(delta_lib.apply(seed, delta), tuned)


def test_too_many_differences_are_refused_with_the_numbers():
  seed, tuned = {'a': np.zeros(8)}, {'a': np.arange(8.0) // 6}
  assert delta_lib.diff(seed, tuned, max_fraction=0.25).size == 2
  with pytest.raises(
    delta_lib.TooManyDifferencesError, match=r'2 of 8 .*0\.25.* at most 0\.24'
  ):
    delta_lib.diff(seed, tuned, max_fraction=0.24)


# Applying, taking back, swapping.


@pytest.mark.parametrize('kind', KINDS)
def test_apply_then_revert_restores_every_bit(kind):
  delta = delta_lib.diff(SEED, A)
  seed = _on(kind, SEED)
  applied = delta_lib.apply(seed, delta)
  _assert_same(applied, A)
  _assert_like(applied, seed)
  for values in (seed, SEED):
    reverted = delta_lib.revert(applied, delta, values)
    _assert_same(reverted, SEED)
    _assert_like(reverted, seed)
  _assert_same(seed, SEED)  # the arguments are as they were
  _assert_same(applied, A)


@pytest.mark.parametrize('kind', KINDS)
def test_swap_is_revert_and_apply(kind):
  a, b = delta_lib.diff(SEED, A), delta_lib.diff(SEED, B)
  applied = delta_lib.apply(_on(kind, SEED), a)
  swapped = delta_lib.swap(applied, a, b, SEED)
  _assert_same(swapped, B)
  _assert_like(swapped, applied)
  _assert_same(applied, A)
  _assert_same(delta_lib.swap(swapped, b, b, SEED), B)


def test_swap_writes_no_position_twice(monkeypatch):
  # Which write would win is undefined on an accelerator.
  scatter = flat_access.scatter

  def once(leaf, positions, values, path):
    assert np.unique(positions).size == positions.size, path
    return scatter(leaf, positions, values, path)

  monkeypatch.setattr(flat_access, 'scatter', once)
  a, b = delta_lib.diff(SEED, A), delta_lib.diff(SEED, B)
  shared = set(a.entries['encoder/kernel'].positions)
  assert shared & set(b.entries['encoder/kernel'].positions)
  _assert_same(delta_lib.swap(A, a, b, SEED), B)


def test_unchanged_arrays_are_shared_and_changed_ones_are_not():
  tuned = {**SEED, 'gain': np.float32(5.0).reshape(())}
  applied = delta_lib.apply(SEED, delta_lib.diff(SEED, tuned))
  assert applied['table'] is SEED['table']
  assert not np.shares_memory(applied['gain'], SEED['gain'])


@hypothesis.given(st.data())
def test_any_two_trees_differ_by_a_delta(data):
  dtype = data.draw(st.sampled_from([np.uint8, np.float16, np.float32, BF16]))
  width = np.dtype(dtype).itemsize
  shape = data.draw(st.lists(st.integers(0, 4), max_size=3).map(tuple))
  size = int(np.prod(shape))
  words = st.integers(0, 256**width - 1)
  old, new = (
    np.array(data.draw(st.lists(words, min_size=size, max_size=size)))
    .astype(f'u{width}')
    .view(dtype)
    .reshape(shape)
    for _ in range(2)
  )
  if dtype is not np.uint8:
    new = np.where(np.isfinite(new) | ~np.isfinite(old), new, old)
  seed, tuned = {'a': old}, {'a': new}
  delta = delta_lib.diff(seed, tuned)
  applied = delta_lib.apply(seed, delta)
  _assert_same(applied, tuned)
  _assert_same(delta_lib.revert(applied, delta, seed), seed)


def test_parameters_need_not_be_named_if_they_did_not_change():
  whole = delta_lib.diff(SEED, {**SEED, 'gain': A['gain']})
  part = dataclasses.replace(whole, entries={'gain': whole.entries['gain']})
  assert part != whole
  _assert_same(delta_lib.apply(SEED, part), {**SEED, 'gain': A['gain']})


def test_positions_beyond_2_to_the_31_are_gathered_and_scattered():
  # A broadcast array has the shape without the memory.
  wide = np.broadcast_to(np.float32(1.5), (2**17, 2**16))
  place = 2**17 * 2**16 - 1
  assert (
    flat_access.gather(wide, np.array([0, place], np.int64), 'a').tolist()
    == [1.5] * 2
  )
  entry = Entry(wide.shape, wide.dtype, [place], np.array([2], np.float32))
  assert entry.positions.tolist() == [place]


# Refusals. Every case names what is wrong, and changes nothing.


def _replaced(path, **changes):
  return lambda d: dataclasses.replace(
    d,
    entries={
      **d.entries,
      path: dataclasses.replace(d.entries[path], **changes),
    },
  )


def _with_info(**changes):
  return lambda d: dataclasses.replace(
    d, info=dataclasses.replace(d.info, **changes)
  )


def _without(path):
  return lambda tree: paths.unflatten(
    {p: leaf for p, leaf in paths.flatten(tree).items() if p != path}
  )


def _with(path, leaf):
  return lambda tree: paths.unflatten({**paths.flatten(tree), path: leaf})


def _poked(path, position, value):
  def change(tree):
    leaf = paths.flatten(tree)[path].copy()
    leaf.reshape(-1)[position] = value
    return _with(path, leaf)(tree)

  return change


def _same(x):
  return x


ENTRY = delta_lib.diff(SEED, A).entries['encoder/kernel']
INFINITE = ENTRY.values.copy()
INFINITE[-1] = np.inf
UNTOUCHED = next(i for i in range(384) if i not in ENTRY.positions.tolist())

REFUSALS = {
  'missing': (
    _without('encoder/kernel'),
    _same,
    delta_lib.UnknownParameterError,
    "no 'encoder/kernel' among the parameters; nearest: 'decoder/k",
  ),
  'shape': (
    _with('encoder/kernel', np.zeros((24, 16), np.float32)),
    _same,
    delta_lib.ShapeMismatchError,
    r"'encoder/kernel' has shape \(24, 16\); \(16, 24\)",
  ),
  'dtype': (
    _with('encoder/kernel', np.zeros((16, 24), BF16)),
    _same,
    delta_lib.DtypeMismatchError,
    "'encoder/kernel' is bfloat16; float32 is needed",
  ),
  'no array': (
    _with('encoder/kernel', 1.0),
    _same,
    delta_lib.UnknownParameterError,
    "'encoder/kernel' is a float",
  ),
  'other values at the positions': (
    _poked('encoder/kernel', ENTRY.positions[7], 0.125),
    _same,
    delta_lib.WrongSeedError,
    'another seed: at its positions',
  ),
  'minus zero at a position': (
    _poked('encoder/kernel', 3, 0.0),
    _same,
    delta_lib.WrongSeedError,
    'another seed',
  ),
  'applied already': (
    lambda tree: copy.deepcopy(A),
    _same,
    delta_lib.WrongSeedError,
    'already applied',
  ),
  'other values elsewhere': (
    _poked('encoder/kernel', UNTOUCHED, 0.125),
    _same,
    delta_lib.WrongSeedError,
    'differs elsewhere',
  ),
  'a parameter too many': (
    _with('encoder/extra', np.ones(1)),
    _same,
    delta_lib.WrongSeedError,
    'does not know encoder/extra',
  ),
  'a value changed': (
    _same,
    _replaced('encoder/kernel', values=-ENTRY.values),
    delta_lib.ResultMismatchError,
    'the seed is the right one.*damaged',
  ),
  'a value not finite': (
    _same,
    _replaced('encoder/kernel', values=INFINITE),
    delta_lib.NonFiniteValueError,
    "'encoder/kernel' has 1 values.*inf, at position",
  ),
  'a position moved': (
    _same,
    _replaced(
      'encoder/kernel',
      positions=np.sort(np.append(ENTRY.positions[:-1], UNTOUCHED)),
    ),
    delta_lib.WrongSeedError,
    'another seed',
  ),
  'the hash of the replaced values': (
    _same,
    _with_info(replaced_hash=HASH),
    delta_lib.WrongSeedError,
    HASH,
  ),
  'the result': (
    _same,
    _with_info(result_fingerprint=HASH),
    delta_lib.ResultMismatchError,
    HASH,
  ),
}


@pytest.mark.parametrize('kind', ['numpy', 'jax'])
@pytest.mark.parametrize(
  ('change', 'damage', 'error', 'message'), REFUSALS.values(), ids=REFUSALS
)
def test_apply_refuses(kind, change, damage, error, message):
  params = change(_on(kind, SEED)) if kind == 'numpy' else None
  if params is None:
    params = jax.tree.map(
      lambda a: jnp.asarray(a) if isinstance(a, np.ndarray) else a,
      change(copy.deepcopy(SEED)),
    )
    if change is REFUSALS['a parameter too many'][0]:
      params['encoder']['extra'] = jnp.ones(1)
  before = copy.deepcopy(jax.tree.map(np.asarray, params))
  delta = damage(delta_lib.diff(SEED, A))
  with pytest.raises(error, match=message):
    delta_lib.apply(params, delta)
  _assert_same(jax.tree.map(np.asarray, params), before)


def test_apply_without_verification_still_checks_what_it_touches():
  delta = delta_lib.diff(SEED, A)
  wrong = _poked('encoder/kernel', UNTOUCHED, 0.125)(SEED)
  found = delta_lib.apply(wrong, delta, verify=False)
  assert found['encoder']['kernel'].reshape(-1)[UNTOUCHED] == 0.125
  with pytest.raises(delta_lib.WrongSeedError):
    delta_lib.apply(
      _poked('encoder/kernel', ENTRY.positions[0], 9.0)(SEED),
      delta,
      verify=False,
    )


@pytest.mark.parametrize(
  ('params', 'seed', 'error', 'message'),
  [
    (SEED, SEED, delta_lib.NotAppliedError, 'differs from the delta at'),
    (B, SEED, delta_lib.NotAppliedError, 'not what is applied'),
    (A, A, delta_lib.WrongSeedError, 'already applied'),
    (A, B, delta_lib.WrongSeedError, 'another seed'),
    (
      A,
      _without('gain')(SEED),
      delta_lib.UnknownParameterError,
      "no 'gain' among the seed",
    ),
    (
      _poked('encoder/kernel', UNTOUCHED, 0.125)(A),
      SEED,
      delta_lib.ResultMismatchError,
      'outside the delta',
    ),
  ],
)
def test_revert_refuses(params, seed, error, message):
  with pytest.raises(error, match=message):
    delta_lib.revert(params, delta_lib.diff(SEED, A), seed)


def test_swap_refuses_what_apply_and_revert_refuse():
  a, b = delta_lib.diff(SEED, A), delta_lib.diff(SEED, B)
  other = _with_info(seed_fingerprint=HASH)(b)
  with pytest.raises(delta_lib.WrongSeedError, match='different seeds'):
    delta_lib.swap(A, a, other, SEED)
  with pytest.raises(delta_lib.NotAppliedError):
    delta_lib.swap(B, a, b, SEED)
  with pytest.raises(delta_lib.WrongSeedError, match='another seed'):
    delta_lib.swap(A, a, _with_info(replaced_hash=HASH)(b), SEED)
  with pytest.raises(delta_lib.ResultMismatchError, match='the swap'):
    delta_lib.swap(A, a, _with_info(result_fingerprint=HASH)(b), SEED)


@pytest.mark.parametrize(
  ('change', 'error', 'message'),
  [
    (
      _without('gain'),
      delta_lib.UnknownParameterError,
      "no 'gain' among the tuned",
    ),
    (
      _with('more', np.ones(1)),
      delta_lib.UnknownParameterError,
      "no 'more' among the seed",
    ),
    (
      _with('gain', np.ones(1, np.float32)),
      delta_lib.ShapeMismatchError,
      "'gain'",
    ),
    (_with('gain', np.ones(())), delta_lib.DtypeMismatchError, "'gain'"),
    (
      _with('gain', np.float32(np.nan).reshape(())),
      delta_lib.NonFiniteValueError,
      "'gain'.*nan",
    ),
  ],
)
def test_diff_refuses(change, error, message):
  with pytest.raises(error, match=message):
    delta_lib.diff(SEED, change(SEED))


# The parts.

ONES = np.ones(2, np.float32)


@pytest.mark.parametrize(
  ('shape', 'dtype', 'positions', 'values', 'error', 'message'),
  [
    ((4,), 'float32', [2, 1], ONES, 'PositionError', '1 follows 2'),
    ((4,), 'float32', [1, 1], ONES, 'PositionError', '1 follows 1'),
    ((4,), 'float32', [-1, 1], ONES, 'PositionError', 'range is 0 to 3'),
    ((4,), 'float32', [1, 4], ONES, 'PositionError', 'range is 0 to 3'),
    ((0,), 'float32', [0, 1], ONES, 'PositionError', '0 to -1'),
    ((4,), 'float32', [1], ONES, 'PositionError', 'equal length'),
    ((4,), 'float32', [[0, 1]], ONES[None], 'PositionError', 'equal length'),
    ((4,), 'float32', [0.0, 1.0], ONES, 'PositionError', 'whole numbers'),
    ((4,), 'float32', [True, False], ONES, 'PositionError', 'whole numbers'),
    ((4,), 'float16', [0, 1], ONES, 'DtypeMismatchError', 'float32 instead'),
    ((4,), 'complex64', [0, 1], ONES, 'DtypeMismatchError', 'not one of'),
    ((-4,), 'float32', [0, 1], ONES, 'ShapeMismatchError', 'negative'),
    (
      (4,),
      'float32',
      np.array([0, 2**63], np.uint64),
      ONES,
      'PositionError',
      'follows|range',
    ),
  ],
)
def test_an_entry_refuses(shape, dtype, positions, values, error, message):
  with pytest.raises(getattr(delta_lib, error), match=message):
    Entry(shape, dtype, positions, values)


def test_an_entry_cannot_be_changed():
  positions, values = np.array([0, 3], np.int64), ONES.copy()
  entry = Entry((4,), np.dtype('float32'), positions, values)
  positions[0], values[0] = 2, 9.0
  assert entry.positions.tolist() == [0, 3]
  assert entry.values.tolist() == [1.0, 1.0]
  for array in (entry.positions, entry.values):
    with pytest.raises(ValueError, match='read-only'):
      array[0] = 1
  with pytest.raises(dataclasses.FrozenInstanceError):
    entry.shape = (5,)


def test_a_delta_cannot_be_changed():
  entries = {'a': Entry((4,), 'float32', [0, 3], ONES)}
  delta = delta_lib.SubsetDelta(entries, delta_lib.diff(SEED, A).info)
  entries['b'] = entries['a']
  assert list(delta.entries) == ['a']
  with pytest.raises(TypeError):
    entries_of: Any = delta.entries
    entries_of['b'] = entries['a']


@pytest.mark.parametrize(
  'change',
  [
    {'shape': (2, 2)},
    {'dtype': np.dtype('int32'), 'values': ONES.view(np.int32)},
    {'positions': [0, 2]},
    {'values': -ONES},
  ],
)
def test_equality_sees_everything(change):
  entry = Entry((4,), 'float32', [0, 3], ONES)
  assert entry == Entry([4], '>f4', [0, 3], ONES.astype('>f4'))
  assert entry != dataclasses.replace(entry, **change)
  info = delta_lib.diff(SEED, A).info
  one = delta_lib.SubsetDelta({'a': entry}, info)
  other = dataclasses.replace(entry, **change)
  assert one == delta_lib.SubsetDelta({'a': entry}, info)
  assert one != delta_lib.SubsetDelta({'a': other}, info)
  assert one != delta_lib.SubsetDelta({'b': entry}, info)
  assert one != dataclasses.replace(
    one, info=dataclasses.replace(info, step=99)
  )


def test_equality_compares_bits():
  def entry(*words):
    values = np.frombuffer(struct.pack('<2I', *words), np.float32)
    return Entry((4,), 'float32', [0, 3], values)

  assert entry(0x7FC00001, 0) == entry(0x7FC00001, 0)
  assert entry(0x7FC00001, 0) != entry(0x7FC00002, 0)
  assert entry(0x7FC00001, 0) != entry(0x7FC00001, 0x80000000)


@pytest.mark.parametrize('path', ['', '/', 'a//b', 'a/', 'b/c'])
def test_paths_must_name_parameters(path):
  entry = Entry((4,), 'float32', [0, 3], ONES)
  with pytest.raises(delta_lib.UnknownParameterError):
    delta_lib.SubsetDelta(
      {path: entry, 'b': entry}, delta_lib.diff(SEED, A).info
    )


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('method', None),
    ('silo_rule', 3),
    ('epsilon', 0.0),
    ('epsilon', 1.5),
    ('epsilon', float('nan')),
    ('epsilon', 1),
    ('budget', -1),
    ('budget', True),
    ('step', -1),
    ('step', 1.0),
    ('seed_fingerprint', 'sha256:0'),
    ('replaced_hash', 64 * '0'),
    ('result_fingerprint', HASH.upper()),
  ],
)
def test_info_must_make_sense(field, value):
  info = delta_lib.diff(SEED, A).info
  with pytest.raises(delta_lib.InfoError, match=field):
    dataclasses.replace(info, **{field: value})


def test_every_error_is_a_value_error():
  errors = [
    value
    for value in vars(types).values()
    if isinstance(value, type) and issubclass(value, Exception)
  ]
  assert len(errors) > 10
  assert all(issubclass(error, delta_lib.DeltaError) for error in errors)
  assert issubclass(delta_lib.DeltaError, ValueError)
