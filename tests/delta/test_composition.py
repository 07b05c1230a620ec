"""Composing deltas, judged by arithmetic written anew over whole arrays."""

import dataclasses
import json
import pathlib

import hypothesis
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import strategies as st

from dst_t5x import delta as delta_lib
from dst_t5x import seeds
from dst_t5x.commands.delta_commands import delta as command
from dst_t5x.delta import composition
from dst_t5x.delta.file import container

BF16 = ml_dtypes.bfloat16
SEED = {
  'encoder': {'kernel': np.float32([[0.5, -0.0, 3.0], [1.0, 2.0, np.inf]])},
  'scale': np.array([1.0, 2.0, 3.0, 4.0], BF16),
}


def _tuned(kernel=(), scale=()) -> dict:
  tuned = {
    'encoder': {'kernel': SEED['encoder']['kernel'].copy()},
    'scale': SEED['scale'].copy(),
  }
  for at, value in kernel:
    tuned['encoder']['kernel'].reshape(-1)[at] = value
  for at, value in scale:
    tuned['scale'][at] = value
  return tuned


def _delta(kernel=(), scale=(), **info) -> delta_lib.SubsetDelta:
  return delta_lib.diff(SEED, _tuned(kernel, scale), **info)


A = _delta([(0, 1.5), (2, 4.0)], [(1, 2.5)], method='dst', step=3)
B = _delta([(2, 4.0), (4, 9.0)], [(1, 3.0), (3, 0.5)], method='pafi', step=4)


def _expect(found: composition.Composition, tuned: dict) -> None:
  """The delta turns the seed into exactly these parameters, and says so."""
  result = delta_lib.apply(SEED, found.delta)  # checks every hash
  for have, want in zip(
    jax.tree.leaves(result), jax.tree.leaves(tuned), strict=True
  ):
    assert have.dtype == want.dtype
    assert have.tobytes() == want.tobytes()
  assert found.delta.info.result_fingerprint == seeds.fingerprint(tuned)


def test_what_only_one_holds_is_kept():
  only = _delta([(4, 9.0)], [(3, 0.5)])
  found = composition.compose(SEED, [A, only])
  assert (found.shared, found.conflicts) == ({}, {})
  _expect(found, _tuned([(0, 1.5), (2, 4.0), (4, 9.0)], [(1, 2.5), (3, 0.5)]))


def test_conflicts_are_refused_with_counts_per_parameter():
  with pytest.raises(composition.ConflictError) as caught:
    composition.compose(SEED, [A, B])
  assert "1 positions have different values in the deltas: 1 in 'scale'" in str(
    caught.value
  )
  assert isinstance(caught.value, ValueError)


def test_the_last_wins():
  found = composition.compose(SEED, [A, B], on_conflict='last')
  assert found.shared == {'encoder/kernel': 1, 'scale': 1}
  assert found.conflicts == {'scale': 1}
  _expect(found, _tuned([(0, 1.5), (2, 4.0), (4, 9.0)], [(1, 3.0), (3, 0.5)]))
  other = composition.compose(SEED, [B, A], on_conflict='last')
  _expect(other, _tuned([(0, 1.5), (2, 4.0), (4, 9.0)], [(1, 2.5), (3, 0.5)]))


def test_differences_are_summed_also_where_deltas_agree():
  found = composition.compose(SEED, [A, B], on_conflict='sum')
  # 3 + 1 + 1 where both say 4; 2 + 0.5 + 1.
  _expect(found, _tuned([(0, 1.5), (2, 5.0), (4, 9.0)], [(1, 3.5), (3, 0.5)]))
  info = found.delta.info
  assert (info.method, info.step) == ('compose(dst, pafi)', 7)
  assert (info.epsilon, info.budget, info.silo_rule) == (None, None, 'unknown')


def test_what_cancels_is_left_out():
  back = _delta([(0, -0.5)])
  found = composition.compose(
    SEED, [_delta([(0, 1.5)]), back], on_conflict='sum'
  )
  assert found.delta.size == 0
  assert found.conflicts == {'encoder/kernel': 1}
  _expect(found, SEED)


def test_three_at_once():
  parts = [_delta([(2, 3.0 + d), (3, 1.5)]) for d in (1.0, 2.0, 4.0)]
  found = composition.compose(SEED, parts, on_conflict='sum')
  assert found.shared == {'encoder/kernel': 2}
  assert found.conflicts == {'encoder/kernel': 1}
  _expect(found, _tuned([(2, 10.0), (3, 2.5)]))


@pytest.mark.parametrize(
  ('deltas', 'options', 'error', 'message'),
  [
    ([A], {}, delta_lib.DeltaError, 'too few'),
    ([A, B], {'on_conflict': 'first'}, delta_lib.DeltaError, "'first'.*error"),
    (
      [_delta([(2, 3e38)]), _delta([(2, 2e38)])],
      {'on_conflict': 'sum'},
      delta_lib.NonFiniteValueError,
      'position 2, where the seed is 3.0',
    ),
    (
      [_delta([(5, 1.0)]), _delta([(5, 2.0)])],
      {'on_conflict': 'sum'},
      delta_lib.NonFiniteValueError,
      'where the seed is inf',
    ),
  ],
)
def test_refusals(deltas, options, error, message):
  with pytest.raises(error, match=message):
    composition.compose(SEED, deltas, **options)


def test_deltas_of_other_seeds_are_refused():
  moved = _tuned([(3, 8.0)])
  stranger = delta_lib.diff(moved, _tuned([(3, 8.0), (4, 1.0)]))
  with pytest.raises(delta_lib.WrongSeedError, match='different seeds'):
    composition.compose(SEED, [A, stranger])
  # The same values at all positions, and other ones elsewhere.
  with pytest.raises(delta_lib.WrongSeedError, match='differs elsewhere'):
    composition.compose(moved, [A, B], on_conflict='last')
  with pytest.raises(delta_lib.WrongSeedError, match='another seed'):
    composition.compose(_tuned([(2, 8.0)]), [A, B], on_conflict='last')
  forged = dataclasses.replace(B.info, seed_fingerprint='sha256:' + 64 * '1')
  with pytest.raises(delta_lib.WrongSeedError, match='different seeds'):
    composition.compose(SEED, [A, delta_lib.SubsetDelta(B.entries, forged)])


def test_whole_numbers_are_not_summed():
  seed = {'table': np.int32([1, 2])}
  parts = [delta_lib.diff(seed, {'table': np.int32([v, 2])}) for v in (5, 6)]
  with pytest.raises(delta_lib.DtypeMismatchError, match='int32'):
    composition.compose(seed, parts, on_conflict='sum')
  found = composition.compose(seed, parts, on_conflict='last')
  assert found.delta.entries['table'].values.tolist() == [6]


def test_jax_seeds_give_the_same():
  on_device = jax.tree.map(jnp.asarray, SEED)
  host = composition.compose(SEED, [A, B], on_conflict='sum')
  assert composition.compose(on_device, [A, B], on_conflict='sum') == host


_changes = st.lists(
  st.dictionaries(st.integers(0, 11), st.floats(-8, 8, width=16), max_size=12),
  min_size=2,
  max_size=4,
)


@hypothesis.given(_changes, st.sampled_from(['last', 'sum']))
def test_against_dense_arithmetic(changes, policy):
  """Numbers so short that sums are exact in any order."""
  base = np.arange(12, dtype=np.float32) - 6
  seed, tuned, held = {'w': base}, [], np.zeros(12, int)
  for change in changes:
    new = base.copy()
    for at, value in change.items():
      new[at] = np.float32(round(value * 4) / 4)
    tuned.append(new)
    held += new.view(np.uint32) != base.view(np.uint32)
  expected = base.copy()
  for new in tuned:
    moved = new.view(np.uint32) != base.view(np.uint32)
    if policy == 'last':
      expected[moved] = new[moved]
  if policy == 'sum':
    total = base + sum(new - base for new in tuned)
    alone = held == 1
    for new in tuned:
      moved = new.view(np.uint32) != base.view(np.uint32)
      expected[moved & alone] = new[moved & alone]
    expected[held > 1] = total[held > 1]
  deltas = [delta_lib.diff(seed, {'w': new}) for new in tuned]
  found = composition.compose(seed, deltas, on_conflict=policy)
  result = delta_lib.apply(seed, found.delta)['w']
  assert result.tobytes() == expected.tobytes()
  assert sum(found.shared.values()) == int((held > 1).sum())


def _run(*arguments: str):
  return CliRunner().invoke(command, ['compose', *arguments])


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
  monkeypatch.chdir(tmp_path)
  seeds.write('seed.safetensors', SEED, config=None)
  container.write(A, 'a.safetensors')
  container.write(B, 'b.safetensors', seed=SEED)
  return tmp_path


@pytest.mark.usefixtures('folder')
def test_command_writes_and_reports():
  files = ('a.safetensors', 'b.safetensors', '--seed', 'seed.safetensors')
  out = ('--out', 'c.safetensors')
  refused = _run(*files, *out)
  assert isinstance(refused.exception, composition.ConflictError)
  assert not pathlib.Path('c.safetensors').exists()
  done = _run(*files, *out, '--on-conflict', 'sum', '--json')
  assert done.exception is None, done.output
  told = json.loads(done.stdout)
  read = container.read('c.safetensors')
  expected = composition.compose(SEED, [A, B], on_conflict='sum')
  assert read == expected.delta
  assert told == {
    'out': 'c.safetensors',
    'bytes': pathlib.Path('c.safetensors').stat().st_size,
    'positions': 5,
    'positions_of_each': [3, 4],
    'shared': 2,
    'conflicts': 1,
    'on_conflict': 'sum',
    'result_fingerprint': read.info.result_fingerprint,
    'shared_in': {'encoder/kernel': 1, 'scale': 1},
    'conflicts_in': {'scale': 1},
  }
  again = _run(*files, *out, '--on-conflict', 'last')
  assert 'exists; --overwrite' in str(again.exception)
  text = _run(*files, *out, '--on-conflict', 'last', '--overwrite').stdout
  assert 'conflicts in, scale: 1' in text
