"""A run that an earlier version was stopped in goes on.

`golden/standalone_run_v1.tar.xz` holds a tiny random seed and two runs of four
steps on number_words, and the deltas to which that version took them after four
more steps. It was made once and must not change.
"""

import json
import pathlib
import tarfile

import numpy as np
import pytest

import dst_t5x.tasks.number_words  # noqa: F401  (registers the task)
from dst_t5x import delta, seeds
from dst_t5x.core import methods
from dst_t5x.standalone import training
from dst_t5x.standalone.settings import TrainSettings

GOLDEN = (
  pathlib.Path(__file__).resolve().parents[1]
  / 'golden'
  / 'standalone_run_v1.tar.xz'
)


@pytest.fixture
def runs(tmp_path) -> pathlib.Path:
  with tarfile.open(GOLDEN) as archive:
    archive.extractall(tmp_path, filter='data')
  return tmp_path / 'standalone_run_v1'


def settings(method):
  return TrainSettings(
    method=method,
    mixture_or_task_name='number_words',
    task_feature_lengths={'inputs': 64, 'targets': 64},
    train_steps=8,
    batch_size=4,
    learning_rate=0.1,
    epsilon=0.02,
    checkpoint_period=4,
    log_period=4,
  )


@pytest.mark.parametrize(
  ('name', 'method'),
  [('dst', methods.dst()), ('no_churn', methods.dst_no_churn())],
)
def test_an_earlier_run_goes_on(name, method, runs, one_device):
  seed = seeds.read(runs / 'seed.safetensors')
  out = runs / name
  steps = []
  result = training.train(
    settings(method), seed=seed, out=out, quiet=True, on_step=steps.append
  )
  assert steps == [5, 6, 7, 8]
  # The step that was saved stays as it was.
  assert (
    json.loads(
      (out / 'checkpoints' / '00000004' / 'checkpoint.json').read_text()
    )['step']
    == 4
  )

  before = delta.read(out / 'checkpoints' / '00000004' / 'delta.safetensors')
  expected = delta.read(out / 'after_8_steps.safetensors')
  assert result.delta.size == expected.size == before.size
  # Other processors round otherwise, and a near tie may fall the other way; a
  # run that began anew, or lost its moments, would agree nowhere near so well.
  agreement = delta.overlap([result.delta, expected])[0, 1]
  assert agreement > 0.95
  assert delta.overlap([before, expected])[0, 1] <= agreement
  if name == 'no_churn':
    assert agreement == 1.0
  tuned = delta.apply(seed.params, expected)
  for path, entry in result.delta.entries.items():
    node = tuned
    for part in path.split('/'):
      node = node[part]
    both = np.isin(entry.positions, expected.entries[path].positions)
    np.testing.assert_allclose(
      entry.values[both],
      node.reshape(-1)[entry.positions[both]],
      rtol=1e-3,
      atol=1e-5,
    )
