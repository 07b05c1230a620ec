"""What T5X's flags say, read without T5X."""

import gin
import pytest

from dst_t5x.recipes import gin_flags, recipe
from tests import gin_mains
from tests.gin_headers import T5X_ROOT

XXL = '--gin_file=models/t5_1_1_xxl.gin'


def read(*arguments):
  return recipe.read(gin_flags.parse(arguments))


def test_defaults_fill_what_is_not_said():
  found = read(XXL, '--gin.EPSILON=1e-6')
  assert found.network.emb_dim == 4096
  assert found.network.mlp_activations == ('gelu', 'linear')
  assert (found.method, found.epsilon, found.budget) == ('dst', 1e-6, None)
  assert (found.batch_size, found.num_partitions) == (128, 1)
  assert found.lengths == {'inputs': 512, 'targets': 62}
  assert found.optimizer == 'adafactor.Adafactor'
  assert found.model_dir is None


def test_what_is_given_overrides():
  found = read(
    XXL,
    '--gin_file=methods/id3.gin',
    '--gin_file=tasks/gsm8k.gin',
    '--gin_file=runs/finetune_t5x.gin',
    '--gin_file=experiments/gsm8k.gin',
    '--gin.EPSILON=None',
    '--gin.BUDGET=5000',
    '--gin.NUM_PARTITIONS=4',
    "--gin.DTYPE='bfloat16'",
    "--gin.SEED_MEMORY_KIND='pinned_host'",
    "--gin.MODEL_DIR='gs://bucket/run'",
    '--gin.OPTIMIZER=@inner.Optax()',
    '--gin.BATCH_SIZE=%ROWS',
    '--gin.ROWS=64',
    '--tfds_data_dir=gs://bucket/tfds',
    '--alsologtostderr',
  )
  assert (found.method, found.epsilon, found.budget) == ('id3', None, 5000)
  assert found.lengths == {'inputs': 256, 'targets': 384}
  assert (found.num_partitions, found.batch_size) == (4, 64)
  assert found.network.dtype == 'bfloat16'
  assert found.seed_memory_kind == 'pinned_host'
  assert found.model_dir == 'gs://bucket/run'
  assert found.optimizer == 'inner.Optax'


def test_last_one_counts_and_scopes_do_not(tmp_path):
  file = tmp_path / 'mine.gin'
  file.write_text(
    "include 'models/byte_tiny.gin'\nBATCH_SIZE = 8\nx/BATCH_SIZE.y = 3\n"
    'module.fn.BATCH_SIZE = 5\nBATCH_SIZE = 16\n'
  )
  found = read(f'--gin_search_paths={tmp_path}', '--gin_file=mine.gin')
  assert found.batch_size == 16
  assert found.network.emb_dim == 96


@pytest.mark.skipif(T5X_ROOT is None, reason='T5X is not installed')
def test_as_gin_reads_it():
  files = [
    'models/t5_1_1_base.gin',
    'methods/dst.gin',
    'tasks/super_glue.gin',
    'runs/finetune_t5x.gin',
    'experiments/super_glue.gin',
  ]
  found = read(*(f'--gin_file={name}' for name in files))
  with gin_mains.parsed(files, main='t5x.train'):

    def told(name):
      return gin.query_parameter(f'{name}/gin.macro.value')

    assert found.batch_size == told('BATCH_SIZE')
    assert found.epsilon == told('EPSILON')
    assert found.lengths == told('TASK_FEATURE_LENGTHS')
    assert found.num_partitions == told('NUM_PARTITIONS')
    assert found.keep_first == bool(told('TRACK_OVERLAP'))
    assert found.network.dtype == told('DTYPE')
    assert found.network.mlp_dim == told('MLP_DIM')


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], 'does not bind VOCAB_SIZE: .*--gin_file=models/'),
    (['models/x.gin'], "'models/x.gin' is no flag"),
    (['--gin_fil=x'], "no flag '--gin_fil=x'; did you mean --gin_file?"),
    (['--gin_file'], '--gin_file lacks its value'),
    (['--gin_file=models/t5_1_1_xl'], 'did you mean models/t5_1_1_xl.gin?'),
    (['--gin.EPSILON'], '--gin.EPSILON lacks its value'),
    ([XXL, '--gin.EPSILON="much"'], "EPSILON = 'much': a plan needs a value"),
    ([XXL, '--gin.BATCH_SIZE=0'], 'BATCH_SIZE = 0 must be'),
    ([XXL, '--gin.BATCH_SIZE=True'], 'BATCH_SIZE = True'),
    ([XXL, '--gin.BATCH_SIZE=%NONE'], 'BATCH_SIZE is %NONE, which nothing'),
    ([XXL, '--gin.BATCH_SIZE=%B', '--gin.B=%BATCH_SIZE'], 'never ends'),
    ([XXL, '--gin.BATCH_SIZE=%gin.REQUIRED'], 'BATCH_SIZE is required'),
    ([XXL, '--gin.BATCH_SIZE=('], 'is not gin'),
    ([XXL, '--gin.METHOD="dst"'], "METHOD = 'dst' must name one"),
    ([XXL, '--gin.TASK_FEATURE_LENGTHS={"inputs": 0}'], 'inputs.*must be'),
    ([XXL, '--gin.DTYPE="float7"'], 'float7'),
  ],
)
def test_refuses(arguments, message):
  with pytest.raises(gin_flags.RecipeError, match=message):
    read(*arguments)


def test_names_the_file_that_is_not_gin(tmp_path):
  file = tmp_path / 'bad.gin'
  file.write_text('A = (\n')
  with pytest.raises(gin_flags.RecipeError, match=r'bad\.gin is not gin'):
    read(f'--gin_file={file}')
