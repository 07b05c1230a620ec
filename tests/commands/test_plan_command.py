"""`dst-t5x plan`, as far as it goes without a compiler."""

import json

import pytest
from click.testing import CliRunner

from dst_t5x.commands import cli
from dst_t5x.planning import compile_process, virtual_slice

XXL = ('plan', '--model', 'xxl', '--topology', 'v5p:4x4x4', '--epsilon', '1e-6')


def run(*arguments):
  return CliRunner().invoke(cli.main, arguments)


@pytest.fixture
def no_libtpu(monkeypatch):
  monkeypatch.setattr(virtual_slice, 'missing', lambda: 'libtpu is not there')


@pytest.fixture
def compiled(monkeypatch):
  """What is asked of the process that compiles; it compiles nothing."""
  asked = []

  def stand_in(slice_, flags, *, baseline=True, on_stage=None):
    asked.append((str(slice_), list(flags), baseline))
    return {'tuned': {'fits': False, 'why': 'asked only', 'seconds': 0.0}}

  monkeypatch.setattr(virtual_slice, 'missing', lambda: None)
  monkeypatch.setattr(compile_process, 'run', stand_in)
  return asked


def test_bytes_only_says_so(no_libtpu):
  result = run(*XXL)
  assert result.exit_code == 0
  assert 'data 16 × model 4' in result.output
  assert 'Give the run --gin.NUM_PARTITIONS=4' in result.output
  assert 'Bytes that are kept, not compiled: libtpu is not there' in (
    result.output
  )


def test_json(no_libtpu):
  found = json.loads(run(*XXL, '--json').stdout)
  assert found['counted']['parameters'] == 11_135_332_352
  assert found['counted']['budget'] == 11_135
  assert found['counted']['mesh'] == {'data': 16, 'model': 4}
  assert found['num_partitions_chosen_here']
  assert found['compiled'] is None
  assert found['not_compiled_because'] == 'libtpu is not there'


def test_asks_to_compile_the_recipe(compiled):
  result = run(
    *XXL,
    '--batch-size',
    '64',
    '--no-baseline',
    '--gin_file=tasks/gsm8k.gin',
    "--gin.DTYPE='bfloat16'",
    '--json',
  )
  assert json.loads(result.stdout)['compiled']['why'] == 'asked only'
  assert compiled == [
    (
      'v5p:4x4x4',
      [
        '--gin_file=models/t5_1_1_xxl.gin',
        '--gin.EPSILON=1e-06',
        '--gin.BATCH_SIZE=64',
        '--gin_file=tasks/gsm8k.gin',
        "--gin.DTYPE='bfloat16'",
        '--gin.NUM_PARTITIONS=4',
      ],
      False,
    )
  ]


def test_a_given_split_is_kept(compiled):
  run(*XXL, '--num-partitions', '16')
  run(*XXL, '--gin.NUM_PARTITIONS=8')
  assert [
    [flag for flag in flags if 'NUM_PARTITIONS' in flag]
    for _, flags, _ in compiled
  ] == [['--gin.NUM_PARTITIONS=16'], ['--gin.NUM_PARTITIONS=8']]


def test_a_split_of_the_users_own_file_is_kept(compiled, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'mine.gin').write_text("include 'base.gin'\n")
  (tmp_path / 'base.gin').write_text('NUM_PARTITIONS = 8\n')
  defaults = ('tasks/super_glue.gin', 'runs/finetune_t5x.gin', 'mine.gin')
  files = [word for name in defaults for word in ('--gin_file', name)]
  result = run(*XXL, *files)
  assert 'data 8 × model 8' in result.output
  ((_, flags, _),) = compiled
  assert not any('NUM_PARTITIONS' in flag for flag in flags)


def test_what_cannot_fit_is_not_compiled(compiled):
  result = run(
    'plan', '--model', 'xxl', '--topology', 'v4-8', '--epsilon', '1e-4'
  )
  assert 'take a larger slice' in ' '.join(result.output.split())
  assert compiled == []


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('--model', 'huge'), "--model 'huge': there are base,"),
    (('--model', 'models/huge.gin'), 'there is no gin file'),
    (('--model', 'xl', '--method', 'dts'), "methods/dts.gin'"),
    ((), 'VOCAB_SIZE'),
    (('--model', 'xl', '--epsilon', '2'), 'epsilon'),
    (
      (
        '--model',
        'xl',
        '--gin.BUDGET=9',
        '--gin.NUM_PARTITIONS=2',
        '--gin.BATCH_SIZE=100',
      ),
      'BATCH_SIZE=100 is no multiple of 8',
    ),
    (('--model', 'xl', '--gim.EPSILON=1'), "T5X has no flag '--gim.EPS"),
  ],
)
def test_refuses(arguments, message, no_libtpu):
  result = run('plan', '--topology', 'v5e-16', *arguments)
  assert result.exit_code == 2
  assert message in result.output.replace('\n', ' ')


def test_unknown_slice():
  result = run('plan', '--model', 'xl', '--topology', 'v5p:1x1x1')
  assert result.exit_code == 2
  assert 'v5p has v5p:2x2x1' in result.output
