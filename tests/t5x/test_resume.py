"""Killed and restarted, or moved to other devices, a run goes on as it was."""

import random

import numpy as np
import pytest

from tests import checks
from tests.t5x import runs

STEPS = 24


def delta_of(arrays):
  """Positions and values of every silo."""
  keep = ('target/', 'state/positions/', 'state/counts/')
  return {p: x for p, x in arrays.items() if p.startswith(keep)}


def same_run(a, b):
  """Everything but the manifest's own words is the same, bit for bit."""
  assert a.keys() == b.keys()
  checks.same_bits(dict(a.items()), dict(b.items()))


@pytest.fixture(scope='module')
def whole(once, tune):
  """A run that nobody disturbed."""

  def build(folder):
    line = tune(folder / 'run', FINETUNE_STEPS=STEPS)
    runs.run(line, folder).must_succeed()

  return once('whole', build) / 'run'


def test_killed_at_random_moments(tune, whole, tmp_path, long):
  kills = 20 if long else 2
  line = tune(tmp_path / 'run', FINETUNE_STEPS=STEPS)
  rng = random.Random(0)
  died = 0
  for attempt in range(kills * 5):
    if died == kills:
      break
    # Between the first step's end and the run's, as far as this machine goes.
    marker = 'Training: step' if attempt % 4 else 'Saving checkpoint'
    log = runs.kill_when(line, tmp_path, rng.uniform(0.0, 1.0), after=marker)
    died += 'Finished.' not in log
    if 'Finished.' in log:
      # Done before it could be killed: begin again from half of the way.
      for step in runs.steps(tmp_path / 'run')[1:]:
        path = tmp_path / 'run' / f'checkpoint_{step}'
        path.rename(tmp_path / f'gone_{attempt}_{step}')
  assert died == kills
  runs.run(line, tmp_path).must_succeed()
  last = f'checkpoint_{1000 + STEPS}'
  same_run(runs.arrays(tmp_path / 'run' / last), runs.arrays(whole / last))


def test_keeps_the_newest(whole):
  assert runs.steps(whole) == [1000 + STEPS - 4, 1000 + STEPS]


def test_whole_runs_agree_on_every_mesh(tune, once, tmp_path):
  """1 device, 2 × 4 devices in one process, 2 processes × 4 devices."""
  options = runs.COMPARED
  line = tune(tmp_path / 'one', **options)
  runs.run(line, tmp_path).must_succeed()
  line = tune(tmp_path / 'eight', NUM_PARTITIONS=4, **options)
  runs.run(line, tmp_path, devices=8).must_succeed()
  two = runs.two_processes(once, tune)
  one = runs.arrays(tmp_path / 'one/checkpoint_1012')
  for run in (tmp_path / 'eight', two):
    other = runs.arrays(run / 'checkpoint_1012')
    assert delta_of(one).keys() == delta_of(other).keys()
    for path, x in delta_of(one).items():
      if path.startswith('target/'):
        np.testing.assert_allclose(x, other[path], rtol=0, atol=1e-5)
      else:
        np.testing.assert_array_equal(x, other[path], path)

  # What one mesh saved goes on on another: 8 devices → 1, 1 → 2 processes.
  at = dict(runs.arrays(tmp_path / 'eight/checkpoint_1012').items())
  line = tune(tmp_path / 'eight', FINETUNE_STEPS=13, **options)
  done = runs.run(line, tmp_path).must_succeed()
  assert 'Resuming DST after 12 of its own steps' in done.log
  after = runs.arrays(tmp_path / 'eight/checkpoint_1013')
  assert after['state/count'] == at['state/count'] + 1
  assert after['state/step'] == 1013

  line = tune(tmp_path / 'one', FINETUNE_STEPS=13, NUM_PARTITIONS=4, **options)
  failed = runs.run_processes(line, tmp_path)
  assert failed.code == 1
  assert 'and this run has 2. Resume on as many processes' in failed.said
  line = tune(
    tmp_path / 'one',
    FINETUNE_STEPS=13,
    NUM_PARTITIONS=4,
    SAVE_DATASET=False,
    **options,
  )
  runs.run_processes(line, tmp_path).must_succeed()
  assert runs.arrays(tmp_path / 'one/checkpoint_1013')['state/count'] == 13


@pytest.mark.parametrize(
  'method',
  [
    'methods/id3.gin',
    pytest.param('methods/dst_no_churn.gin', marks=pytest.mark.slow),
  ],
)
def test_kept_subsets_resume(tune, tmp_path, method):
  """A subset that is kept is in the checkpoint, as positions."""
  # Resumed with the same number of steps: ID3's schedule depends on it.
  line = tune(tmp_path / 'whole', method=method, FINETUNE_STEPS=8)
  runs.run(line, tmp_path).must_succeed()
  whole = tmp_path / 'whole'
  half = tmp_path / 'half'
  half.mkdir()
  (whole / 'checkpoint_1004').rename(half / 'checkpoint_1004')
  line = tune(half, method=method, FINETUNE_STEPS=8)
  runs.run(line, tmp_path).must_succeed()
  a = runs.arrays(whole / 'checkpoint_1008')
  same_run(a, runs.arrays(half / 'checkpoint_1008'))
  assert any(path.startswith('state/held_positions/') for path in a)


def test_without_inner_state_a_resume_says_so(tune, tmp_path):
  line = tune(tmp_path / 'run', INNER_STATE='none')
  done = runs.run(line, tmp_path).must_succeed()
  assert 'holds no state of the inner optimizer' in done.log
  found = runs.arrays(tmp_path / 'run/checkpoint_1012')
  assert not any(path.startswith('state/inner') for path in found)
  line = tune(tmp_path / 'run', INNER_STATE='none', FINETUNE_STEPS=13)
  done = runs.run(line, tmp_path).must_succeed()
  assert 'Resuming from weights only' in done.log
