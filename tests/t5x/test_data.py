"""The input of a run: same batches for any number of readers, and resumes."""

import functools
from typing import Any

import numpy as np
import pytest
import seqio
from t5x import utils  # type: ignore

import dst_t5x.tasks.number_words  # noqa: F401
from dst_t5x.hooks import datasets

CONFIG = utils.DatasetConfig(
  mixture_or_task_name='number_words',
  task_feature_lengths={'inputs': 64, 'targets': 64},
  split='train',
  batch_size=8,
  shuffle=True,
  seed=0,
  pack=True,
)
CONVERTER = functools.partial(seqio.EncDecFeatureConverter)


def reader(shard, shards, *, same=True, first_step=1000) -> Any:
  return datasets.get_dataset(
    CONFIG, shard, shards, CONVERTER, first_step=first_step, same_batches=same
  )


@pytest.mark.parametrize('shards', [2, 4])
def test_same_batches(shards):
  whole = reader(0, 1)
  parts = [reader(shard, shards) for shard in range(shards)]
  for _ in range(3):
    batch = next(whole)
    pieces = [next(part) for part in parts]
    for name, x in batch.items():
      joined = np.concatenate([piece[name] for piece in pieces])
      np.testing.assert_array_equal(joined, x, name)


def test_stock_readers_see_other_batches():
  """Why the option exists."""
  batch = next(reader(0, 1))
  pieces = [next(reader(shard, 2, same=False)) for shard in range(2)]
  joined = np.concatenate([p['encoder_input_tokens'] for p in pieces])
  assert (joined != batch['encoder_input_tokens']).any()


def test_position_is_restored_but_for_the_first_step(tmp_path):
  undisturbed = reader(0, 1)
  batches = [next(undisturbed) for _ in range(4)]
  for step, expected in ((1000, batches[0]), (1002, batches[2])):
    folder = tmp_path / f'checkpoint_{step}' / 'dataset'
    folder.mkdir(parents=True)
    # T5X fetches the first batch before it saves the first checkpoint.
    before = reader(0, 1)
    for _ in range(max(1, step - 1000)):
      next(before)
    before.save(folder / 'train_ds-000-of-001')
    after = reader(0, 1)
    after.restore(folder / 'train_ds-000-of-001')
    found = next(after)
    for name, x in expected.items():
      np.testing.assert_array_equal(found[name], x, name)


def test_what_cannot_be_read_alike():
  config = utils.DatasetConfig(**{**vars(CONFIG), 'seed': None})
  with pytest.raises(ValueError, match='RANDOM_SEED'):
    datasets.get_dataset(
      config, 0, 2, CONVERTER, first_step=0, same_batches=True
    )
  with pytest.raises(ValueError, match='BATCH_SIZE=8.*3 data shards'):
    reader(0, 3)


@pytest.mark.parametrize(
  ('name', 'step'),
  [
    ('run/checkpoint_1000/dataset/train_ds-000-of-001', 1000),
    ('checkpoint_5/dataset/process_1-of-2/train_ds-001-of-002', 5),
    ('run/other/train_ds', None),
  ],
)
def test_step_of(name, step):
  assert datasets.step_of(name) == step
