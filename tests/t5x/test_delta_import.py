"""A delta file inside stock T5X: the same text as from the merged model."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from dst_t5x import delta, seeds
from dst_t5x.arrays import paths
from dst_t5x.delta.file import container
from tests.t5x import runs


def dst_t5x(*arguments: str) -> dict:
  line = [
    sys.executable,
    '-m',
    'dst_t5x.commands.cli',
    'delta',
    *arguments,
    '--json',
  ]
  done = subprocess.run(line, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


@pytest.fixture(scope='module')
def file(tmp_path_factory) -> pathlib.Path:
  """A delta that no training made: 1 % of the seed, doubled."""
  rng = np.random.default_rng(0)
  seed = seeds.read('bundled').params
  tuned = {}
  for path, leaf in paths.flatten(seed).items():
    chosen = rng.permutation(leaf.size)[: leaf.size // 100]
    tuned[path] = leaf.copy()
    tuned[path].reshape(-1)[chosen] *= 2
  found = delta.diff(seed, paths.unflatten(tuned), method='doubled', step=30)
  path = tmp_path_factory.mktemp('import') / 'delta.safetensors'
  container.write(found, path)
  return path


@pytest.mark.parametrize('main', ['infer', 'eval'])
def test_t5x_takes_an_imported_delta(main, file, seed, tmp_path):
  imported = dst_t5x(
    'import', str(file), str(tmp_path / 'delta'), '--seed', str(seed)
  )
  assert imported['step'] == 1030
  merged = dst_t5x(
    'merge', str(file), str(tmp_path / 'whole'), '--seed', str(seed)
  )
  found = {}
  checkpoints = {'delta': imported['out'], 'whole': merged['out']}
  if main == 'infer':
    checkpoints['seed'] = str(seed)
  for name, checkpoint in checkpoints.items():
    out = tmp_path / f'{name}_{main}'
    line = runs.command(
      main,
      runs.MODEL,
      runs.TASK,
      f'runs/{main}_t5x.gin',
      CHECKPOINT_PATH=checkpoint,
      BATCH_SIZE=100,
      **{f'{main.upper()}_OUTPUT_DIR': str(out)},
    )
    runs.run(line, tmp_path).must_succeed()
    found[name] = (
      runs.predictions(out)
      if main == 'infer'
      else runs.metrics(out / 'inference_eval', 'number_words')
    )
  assert found['delta'] == found['whole']
  if main == 'infer':
    assert found['delta'] != found['seed']
