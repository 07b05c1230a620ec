"""Orbax checkpoints: T5X's, plain ones, and damaged ones.

The plain ones are written by Orbax's own interfaces.
"""

import pathlib
import shutil

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from dst_t5x import seeds
from dst_t5x.seeds import orbax_layout
from dst_t5x.seeds.errors import SeedError

PARAMS = {
  'encoder': {
    'kernel': np.arange(6, dtype=np.float32).reshape(2, 3),
    'scale': np.float32([1, 2, 3]),
  }
}
LEAVES = list(PARAMS['encoder'].items())


@pytest.fixture
def checkpoint(tmp_path) -> pathlib.Path:
  """A checkpoint as T5X writes it."""
  return pathlib.Path(orbax_layout.write(PARAMS, tmp_path / 'checkpoint_7'))


def assert_params(location):
  found = seeds.read(location).params['encoder']
  assert set(found) == {'kernel', 'scale'}
  for name, want in PARAMS['encoder'].items():
    assert found[name].dtype == want.dtype
    np.testing.assert_array_equal(found[name], want)


def test_the_tree_is_t5xs(checkpoint):
  with ocp.PyTreeCheckpointer() as checkpointer:
    tree = checkpointer.restore(checkpoint / 'state')
  assert set(tree) == {'target', 'state'}
  assert tree['state'] == {'step': 7}
  found = tree['target']['encoder']['kernel']
  np.testing.assert_array_equal(found, PARAMS['encoder']['kernel'])
  assert {path.name for path in checkpoint.iterdir()} >= {
    'state',
    '_CHECKPOINT_METADATA',
  }


@pytest.mark.parametrize('item', ['', 'state'])
def test_a_checkpoint_and_its_item_are_the_same(checkpoint, item):
  assert_params(checkpoint / item)
  assert seeds.open_source(checkpoint / item).step == 7


@pytest.mark.parametrize('ocdbt', [True, False])
def test_a_plain_tree_of_parameters_is_read(tmp_path, ocdbt):
  with ocp.Checkpointer(
    ocp.PyTreeCheckpointHandler(use_ocdbt=ocdbt)
  ) as checkpointer:
    checkpointer.save(
      tmp_path / 'plain', {'encoder': {k: jnp.asarray(v) for k, v in LEAVES}}
    )
  assert_params(tmp_path / 'plain')
  source = seeds.open_source(tmp_path / 'plain')
  assert (source.layout, source.step) == ('orbax', None)


def test_a_standard_checkpoint_is_read(tmp_path):
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / 'standard', PARAMS)
  assert_params(tmp_path / 'standard')


def test_a_checkpoint_of_a_manager_is_read(tmp_path):
  with ocp.CheckpointManager(tmp_path / 'run') as manager:
    manager.save(30, args=ocp.args.StandardSave(PARAMS))
  assert_params(tmp_path / 'run' / '30')


def test_a_flax_train_state_gives_its_parameters(tmp_path):
  state = {
    'params': PARAMS,
    'opt_state': {'mu': PARAMS},
    'step': np.int32(30),
  }
  with ocp.PyTreeCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / 'state', state)
  assert_params(tmp_path / 'state')
  assert seeds.open_source(tmp_path / 'state').step == 30


def test_what_is_no_array_is_refused_by_name(tmp_path):
  tree = {'encoder': {'kernel': jnp.ones(2), 'name': 'T5'}}
  with ocp.PyTreeCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / 'odd', tree)
  with pytest.raises(SeedError, match="'encoder/name' is no array"):
    seeds.open_source(tmp_path / 'odd')


def _cut(file: pathlib.Path) -> None:
  file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGES = {
  'metadata cut': lambda c: _cut(c / 'state' / '_METADATA'),
  'manifest cut': lambda c: _cut(c / 'state' / 'manifest.ocdbt'),
  'no manifest': lambda c: (c / 'state' / 'manifest.ocdbt').unlink(),
  'no data': lambda c: [
    shutil.rmtree(p) for p in (c / 'state').rglob('d') if p.is_dir()
  ],
}


# What Orbax leaves behind when it fails.
@pytest.mark.filterwarnings(
  'ignore:coroutine .* was never awaited',
  'ignore:Exception ignored',
  'ignore::pytest.PytestUnraisableExceptionWarning',
)
@pytest.mark.parametrize('damage', DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_refused_by_name(checkpoint, damage):
  damage(checkpoint)
  with pytest.raises(SeedError, match='cannot read the seed') as caught:
    seeds.read(checkpoint)
  assert str(checkpoint) in str(caught.value)


@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_no_changed_bit_of_the_data_is_read(checkpoint):
  before = seeds.read(checkpoint).fingerprint
  refused = 0
  for file in (checkpoint / 'state').rglob('*'):
    if file.is_file() and file.parent.name == 'd':
      data = file.read_bytes()
      for at in range(5, len(data), max(1, len(data) // 3)):
        changed = bytearray(data)
        changed[at] ^= 16
        file.write_bytes(changed)
        try:
          # Not every file of the database is in use.
          assert seeds.read(checkpoint).fingerprint == before
        except SeedError:
          refused += 1
      file.write_bytes(data)
  assert refused >= 3


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
  (tmp_path / 'a' / 'state').mkdir(parents=True)
  with pytest.raises(SeedError, match='no checkpoint of T5X, Orbax or Hugging'):
    seeds.open_source(tmp_path / 'a')
