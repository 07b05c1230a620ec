"""Subset overlap (DST, equation 9), against sets of Python."""

import json
import pathlib

import hypothesis
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import strategies as st

from dst_t5x import delta as delta_lib
from dst_t5x.commands.delta_commands import delta as command
from dst_t5x.delta import overlaps
from dst_t5x.delta.file import container

SIZES = {
  'decoder/layers_0/mlp/wo/kernel': 6,
  'encoder/layers_0/attention/out/kernel': 5,
  'encoder/layers_0/mlp/wi/kernel': 8,
  'encoder/layers_1/mlp/wi/kernel': 8,
}
HASHES = [f'sha256:{n:064x}' for n in range(3)]


def _delta(chosen: dict[str, set[int]], seed: str = HASHES[0], sizes=SIZES):
  info = delta_lib.DeltaInfo('dst', 0.1, None, 'none', 1, seed, *HASHES[1:])
  return delta_lib.SubsetDelta(
    {
      path: delta_lib.DeltaEntry(
        (sizes[path],),
        np.dtype(np.float32),
        np.array(sorted(held), np.int64),
        np.ones(len(held), np.float32),
      )
      for path, held in chosen.items()
    },
    info,
  )


WI0, WI1 = 'encoder/layers_0/mlp/wi/kernel', 'encoder/layers_1/mlp/wi/kernel'
OUT, WO = (
  'encoder/layers_0/attention/out/kernel',
  'decoder/layers_0/mlp/wo/kernel',
)
A = _delta({WI0: {0, 1, 2}, WI1: {7}, OUT: set()})
B = _delta({WI0: {2, 3}, WI1: {7}, OUT: {0, 4}})
EMPTY = _delta({})


def test_by_hand():
  counts = overlaps.overlap_counts([A, B, EMPTY])
  np.testing.assert_array_equal(
    overlaps.overlap_fractions(counts),
    [[1, 2 / 4, 0], [2 / 5, 1, 0], [np.nan] * 3],
  )
  modules = {
    name: overlaps.overlap_fractions(each)
    for name, each in overlaps.counts_by_module(counts).items()
  }
  assert list(modules) == ['encoder/attention', 'encoder/mlp']
  np.testing.assert_array_equal(
    modules['encoder/mlp'], [[1, 2 / 4, 0], [2 / 3, 1, 0], [np.nan] * 3]
  )
  np.testing.assert_array_equal(
    modules['encoder/attention'], [[np.nan] * 3, [0, 1, 0], [np.nan] * 3]
  )


_subsets = st.fixed_dictionaries(
  {path: st.sets(st.integers(0, n - 1)) for path, n in SIZES.items()}
)


@hypothesis.given(st.lists(_subsets, min_size=1, max_size=4))
def test_against_sets(chosen):
  found = overlaps.overlap_fractions(
    overlaps.overlap_counts([_delta(each) for each in chosen])
  )
  whole = [
    {(p, i) for p, held in each.items() for i in held} for each in chosen
  ]
  np.testing.assert_array_equal(
    found, delta_lib.overlap([_delta(each) for each in chosen])
  )
  for a, left in enumerate(whole):
    for b, right in enumerate(whole):
      if left:
        assert found[a, b] == len(left & right) / len(left)
      else:
        assert np.isnan(found[a, b])


def test_refusals():
  with pytest.raises(delta_lib.WrongSeedError, match='different seeds'):
    overlaps.overlap_counts([A, _delta({}, seed=HASHES[1])])
  other = _delta({WI0: {0}}, sizes={WI0: 9})
  with pytest.raises(delta_lib.ShapeMismatchError, match=r'\(8,\).*\(9,\)'):
    overlaps.overlap_counts([A, other])
  with pytest.raises(delta_lib.DeltaError, match='no deltas'):
    overlaps.overlap_counts([])
  with pytest.raises(delta_lib.DeltaError, match='no parameters'):
    overlaps.overlap_fractions(overlaps.overlap_counts([EMPTY]))
  with pytest.raises(delta_lib.DeltaError, match='no parameters'):
    delta_lib.overlap([EMPTY])


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
  monkeypatch.chdir(tmp_path)
  for name, delta in (('a', A), ('b', B), ('empty', EMPTY)):
    container.write(delta, f'{name}.safetensors')
  return tmp_path


def _run(*arguments: str):
  result = CliRunner().invoke(command, ['overlap', *arguments])
  assert result.exception is None, result.output
  return result.stdout


def test_command_prints_json_and_draws(folder):
  files = ['a.safetensors', 'b.safetensors', 'empty.safetensors']
  told = json.loads(_run(*files, '--json', '--plot', 'plots/overlap.png'))
  assert told == {
    'files': files,
    'common': [[4, 2, 0], [2, 5, 0], [0, 0, 0]],
    'overlap': [[1.0, 0.5, 0.0], [0.4, 1.0, 0.0], [None] * 3],
    'modules': {
      'encoder/attention': [[None] * 3, [0.0, 1.0, 0.0], [None] * 3],
      'encoder/mlp': [[1.0, 0.5, 0.0], [2 / 3, 1.0, 0.0], [None] * 3],
    },
    'plot': 'plots/overlap.png',
  }
  assert (folder / 'plots/overlap.png').read_bytes()[:4] == b'\x89PNG'


@pytest.mark.usefixtures('folder')
def test_command_prints_a_table():
  text = _run('a.safetensors', 'b.safetensors')
  for part in ('encoder/mlp', '66.7', '40.0', '–', '2  b.safetensors'):
    assert part in text


@pytest.mark.usefixtures('folder')
def test_a_plot_is_a_png():
  result = CliRunner().invoke(
    command, ['overlap', 'a.safetensors', '--plot', 'a.txt']
  )
  assert 'must end in .png' in str(result.exception)
