"""Other optimizers, budgets, memories and methods than the recipe's."""

import numpy as np

from dst_t5x import seeds
from tests import checks
from tests.t5x import runs


def test_optax_tiny_budget_and_seed_in_host_memory(tune, tmp_path):
  """Silos of budget 0; a seed that each step fetches changes no bit."""
  options = {
    'BUDGET': 20,
    'EPSILON': None,
    'OPTIMIZER': runs.Gin('@inner.Optax()'),
    'LEARNING_RATE': 1e-3,
    'CHECKPOINT_PERIOD': 2,
  }
  line = tune(tmp_path / 'beside', FINETUNE_STEPS=4, **options)
  runs.run(line, tmp_path).must_succeed()
  for steps in (2, 4):  # the second run resumes
    line = tune(
      tmp_path / 'host',
      FINETUNE_STEPS=steps,
      SEED_MEMORY_KIND='pinned_host',
      **options,
    )
    runs.run(line, tmp_path).must_succeed()
  found = runs.arrays(tmp_path / 'beside/checkpoint_1004')
  checks.same_bits(found, runs.arrays(tmp_path / 'host/checkpoint_1004'))
  counts = [x for p, x in found.items() if p.startswith('state/counts/')]
  assert sum(int(x.sum()) for x in counts) == 20
  assert len(counts) < 26
  # Adam keeps two means of the parameters' shapes, and those are resumed.
  inner = [p for p in found if p.startswith('state/inner/')]
  assert sum('token_embedder' in p for p in inner) == 2

  line = runs.command(
    'infer',
    runs.MODEL,
    runs.TASK,
    'runs/infer_t5x.gin',
    CHECKPOINT_PATH=str(tmp_path / 'host/checkpoint_1004'),
    INFER_OUTPUT_DIR=str(tmp_path / 'out'),
    BATCH_SIZE=100,
  )
  runs.run(line, tmp_path).must_succeed()
  assert len(runs.predictions(tmp_path / 'out')) == 500


def test_full_fine_tuning_writes_whole_checkpoints(tune, tmp_path):
  line = tune(
    tmp_path / 'run',
    method='methods/full.gin',
    EPSILON=None,
    FINETUNE_STEPS=2,
    CHECKPOINT_PERIOD=2,
  )
  runs.run(line, tmp_path).must_succeed()
  before = runs.arrays(tmp_path / 'run/checkpoint_1000')
  after = runs.arrays(tmp_path / 'run/checkpoint_1002')
  assert 'state/manifest' not in after
  name = 'target/encoder/layers_0/mlp/wo/kernel'
  assert before[name].shape == (192, 96)
  assert np.mean(before[name] != after[name]) > 0.99
  # It began at the seed, not at random.
  bundled = seeds.read('bundled').params
  expected = bundled['encoder']['layers_0']['mlp']['wo']['kernel']
  np.testing.assert_array_equal(before[name], expected)


def test_best_checkpoints_are_kept(tune, tmp_path):
  """A rate that ruins the model makes an early checkpoint the best."""
  line = tune(
    tmp_path / 'run',
    FINETUNE_STEPS=8,
    CHECKPOINT_PERIOD=2,
    STATS_PERIOD=2,
    LEARNING_RATE=3.0,
    KEEP=1,
    BEST_METRIC='train/loss',
    BEST_MODE='min',
  )
  runs.run(line, tmp_path).must_succeed()
  losses = runs.scalars(tmp_path / 'run/train')['loss']
  assert sorted(losses) == [1002, 1004, 1006, 1008]
  best = min(losses, key=losses.__getitem__)
  assert best != 1008
  # T5X also keeps what has no value yet.
  assert runs.steps(tmp_path / 'run') == [1000, best]
