"""What is wrong is said before training starts, with what would work."""

import importlib
import shutil
import sys

import gin
import pytest
from t5x import gin_utils  # type: ignore

from dst_t5x import seeds
from dst_t5x.checkpoint import delta_checkpoint
from dst_t5x.core import rates
from dst_t5x.recipes import gin_path
from dst_t5x.seeds import conversion
from tests.t5x import runs

RULES = """
from __gin__ import dynamic_registration
from dst_t5x.hooks import partitioning as dst_partitioning
dst_partitioning.Partitioner.logical_axis_rules = [
    ('batch', 'data'), ('vocab', 'model'), ('embed', None), ('mlp', 'model'),
    ('heads', 'model'), ('kv', None), ('relpos_buckets', None),
    ('length', None), ('stack', None)]
"""

MAINS = {'t5x.train': 'train', 't5x.infer': 'infer'}


@pytest.fixture
def refuses(monkeypatch):
  """Stock T5X's mains in this process, which saves a start of Python."""

  def refuses(line, *words):
    main = importlib.import_module(line[line.index('-m') + 1])
    monkeypatch.setitem(sys.modules, '__main__', main)
    files = [a.partition('=')[2] for a in line if a.startswith('--gin_file=')]
    bindings = [a[6:] for a in line if a.startswith('--gin.')]
    search = [str(path) for path in gin_path.search_paths()]
    gin.clear_config()
    try:
      with pytest.raises(ValueError) as raised:
        gin_utils.parse_gin_flags(search, files, bindings)
        gin.get_configurable(getattr(main, MAINS[main.__name__]))()
    finally:
      gin.clear_config()
    for word in words:
      assert word in str(raised.value)

  return refuses


def refused(line, tmp_path, *words):
  done = runs.run(line, tmp_path, limit=300)
  assert done.code != 0
  for word in words:
    assert word in done.log, done.log[-3000:]
  assert 'Starting training loop' not in done.log


@pytest.fixture(scope='module')
def begun(once, tune):
  """A run that has a checkpoint."""

  def build(folder):
    line = tune(
      folder / 'run',
      FINETUNE_STEPS=1,
      CHECKPOINT_PERIOD=1,
      LEARNING_RATE=None,
    )
    log = runs.run(line, folder).must_succeed().log
    (folder / 'log.txt').write_text(log)

  return once('begun', build) / 'run'


@pytest.fixture
def copied(begun, tmp_path):
  return shutil.copytree(begun, tmp_path / 'run')


@pytest.mark.parametrize(
  ('macros', 'words'),
  [
    (
      {'EPSILON': 0.02},
      ('belongs to another run', 'EPSILON: 0.01 there, 0.02 here'),
    ),
    (
      {'TRACK_OVERLAP': True, 'INNER_STATE': 'none'},
      (
        'TRACK_OVERLAP: False there, True here',
        "INNER_STATE: 'full' there, 'none' here",
      ),
    ),
    (
      {'SILOS': 'none'},
      ("SILOS: 'module_and_layer' there, 'none' here",),
    ),
    (
      {'method': 'methods/id3.gin'},
      ("METHOD's name: 'dst' there, 'id3' here",),
    ),
    (
      {'method': 'methods/full.gin', 'EPSILON': None},
      ("holds a delta of METHOD 'dst'", "'full'", 'empty MODEL_DIR'),
    ),
  ],
  ids=['epsilon', 'state', 'silos', 'method', 'full'],
)
def test_model_dir_of_another_run(tune, copied, refuses, macros, words):
  refuses(tune(copied, **macros), *words)


def test_a_default_rate_is_logged(begun):
  log = (begun.parent / 'log.txt').read_text()
  assert (
    f'learning rate {rates.RATE_AT_ONE_PERCENT:g}: the default for dst at 1 % '
    'of the parameters; LEARNING_RATE sets another'
  ) in log


def test_a_default_rate_that_has_changed_is_noticed(
  tune, copied, refuses, monkeypatch
):
  recorded = rates.RATE_AT_ONE_PERCENT
  monkeypatch.setattr(rates, 'RATE_AT_ONE_PERCENT', 0.01)
  refuses(
    tune(copied, LEARNING_RATE=None),
    f'LEARNING_RATE: {recorded} there, 0.01 here',
    'give LEARNING_RATE',
  )


def test_main_ends_before_training(tune, copied, tmp_path):
  line = tune(copied, EPSILON=0.02)
  refused(line, tmp_path, 'EPSILON: 0.01 there, 0.02 here')


def test_model_dir_of_another_seed(tune, copied, refuses, tmp_path):
  other = _other_seed(tmp_path)
  line = tune(copied, INITIAL_CHECKPOINT_PATH=other, TRAIN_STEPS=1010)
  refuses(line, 'INITIAL_CHECKPOINT_PATH (the seed):', 'sha256:', other)


@pytest.mark.parametrize(
  ('macros', 'words'),
  [
    (
      {'INITIAL_CHECKPOINT_PATH': 'no/such/checkpoint_1'},
      ('INITIAL_CHECKPOINT_PATH', 'no/such/checkpoint_1'),
    ),
    ({'EPSILON': 0.0}, ('EPSILON=0.0', '(0, 1]')),
    ({'BUDGET': 100}, ('not both', 'BUDGET=100')),
    ({'EPSILON': None, 'BUDGET': 0}, ('BUDGET=0', 'at least 1')),
    (
      {'OPTIMIZER': runs.Gin('@inner.Optax()'), 'LEARNING_RATE': None},
      ('no default learning rate', 'Optax', 'LEARNING_RATE'),
    ),
    ({'TRAIN_STEPS': 500}, ('TRAIN_STEPS=500', 'step 1000')),
    ({'INNER_STATE': 'some'}, ("INNER_STATE='some'", "'full'")),
    ({'VOCAB_SIZE': 200}, ('259 tokens', 'VOCAB_SIZE', '200')),
    ({'EMB_DIM': 32}, ('does not fit the network', 'has shape')),
    (
      {'MIXTURE_OR_TASK_NAME': 'number_word'},
      ("MIXTURE_OR_TASK_NAME='number_word'",),
    ),
    (
      {'SEED_MEMORY_KIND': 'hbm'},
      ("seed_memory_kind='hbm'", 'pinned_host'),
    ),
  ],
  ids=lambda x: next(iter(x)) if isinstance(x, dict) else '',
)
def test_settings(tune, refuses, tmp_path, macros, words):
  refuses(tune(tmp_path / 'run', **macros), *words)


def test_a_budget_is_checked_before_anything_is_made(tune, refuses, seed):
  """Before T5X makes MODEL_DIR, the first thing that it does."""
  file = seed / 'checkpoint'
  assert file.is_file()
  refuses(tune(file / 'run', EPSILON=2.0), 'EPSILON=2.0', '(0, 1]')


def test_a_delta_is_no_seed(tune, begun, refuses, tmp_path):
  path = str(begun / 'checkpoint_1001')
  line = tune(tmp_path / 'run', INITIAL_CHECKPOINT_PATH=path)
  refuses(line, path, 'is a delta checkpoint', 'delta merge')


def test_too_few_devices(tune, refuses, tmp_path):
  line = tune(tmp_path / 'run', NUM_PARTITIONS=3)
  refuses(line, 'num_partitions=3', 'there are 8')


def test_partitioner_without_a_rule(tune, refuses, tmp_path):
  rules = tmp_path / 'rules.gin'
  rules.write_text(RULES)
  line = [*tune(tmp_path / 'run'), f'--gin_file={rules}']
  refuses(
    line,
    "the logical axis 'joined_kv'",
    'has no rule',
    'additional_rules',
  )


def test_infer_with_another_seed(begun, refuses, tmp_path):
  line = runs.command(
    'infer',
    runs.MODEL,
    runs.TASK,
    'runs/infer_t5x.gin',
    CHECKPOINT_PATH=str(begun / 'checkpoint_1001'),
    INFER_OUTPUT_DIR=str(tmp_path / 'out'),
    INITIAL_CHECKPOINT_PATH=_other_seed(tmp_path),
  )
  refuses(line, 'was trained from the seed', 'its own seed')


def test_infer_with_a_seed_that_was_moved(
  begun, refuses, tmp_path, monkeypatch
):
  opened = delta_checkpoint.must_open(str(begun / 'checkpoint_1001'))
  seed = {**opened.manifest['seed'], 'location': str(tmp_path / 'moved')}
  moved = opened._replace(manifest={**opened.manifest, 'seed': seed})
  monkeypatch.setattr(
    delta_checkpoint, 'open_checkpoint', lambda location: moved
  )
  line = runs.command(
    'infer',
    runs.MODEL,
    runs.TASK,
    'runs/infer_t5x.gin',
    CHECKPOINT_PATH=str(begun / 'checkpoint_1001'),
    INFER_OUTPUT_DIR=str(tmp_path / 'out'),
  )
  refuses(line, str(tmp_path / 'moved'), 'INITIAL_CHECKPOINT_PATH says where')


def test_infer_without_a_checkpoint(refuses, tmp_path):
  line = runs.command(
    'infer',
    runs.MODEL,
    runs.TASK,
    'runs/infer_t5x.gin',
    CHECKPOINT_PATH=str(tmp_path / 'checkpoint_7'),
    INFER_OUTPUT_DIR=str(tmp_path / 'out'),
  )
  refuses(line, 'checkpoint_7', 'there is no such checkpoint')


def _other_seed(tmp_path):
  bundled = seeds.read('bundled')
  embedder = {
    'embedding': bundled.params['token_embedder']['embedding'] * 2,
  }
  return str(
    conversion.write(
      't5x',
      {**bundled.params, 'token_embedder': embedder},
      tmp_path / 'other',
      step=1,
      config=None,
    )
  )
