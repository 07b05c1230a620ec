"""`dst-t5x plan`, as far as it goes without a compiler."""

import json

import pytest
from click.testing import CliRunner

from dst_t5x.commands import cli
from dst_t5x.planning import compile_process, tpu_compiler, virtual_slice
from dst_t5x.planning.tpu_compiler import TPUCompiler

XXL = ('plan', '--model', 'xxl', '--topology', 'v5p:4x4x4', '--epsilon', '1e-6')


def run(*arguments):
  return CliRunner().invoke(cli.main, arguments)


@pytest.fixture
def no_libtpu(monkeypatch):
  monkeypatch.delenv(tpu_compiler.VARIABLE, raising=False)
  monkeypatch.setattr(
    virtual_slice, 'missing', lambda compiler: 'libtpu is not there'
  )


GIB = 2**30
FITS = {
  'fits': True,
  'seconds': 1.0,
  'bytes_per_device': {
    'arguments': 3 * GIB,
    'temporaries': 2 * GIB,
    'code': 0,
    'peak': 5 * GIB,
  },
  'operations': 1e12,
  'bytes_accessed': 1e12,
  'collectives': [],
}
VERSIONS = {'libtpu': '1.2.3', 'jax': '4.5.6'}


@pytest.fixture
def step():
  """What the step needs that is not compiled; tests change it."""
  return dict(FITS)


@pytest.fixture
def compiled(monkeypatch, step):
  """What is asked of the process that compiles; it compiles nothing."""
  asked = []

  def stand_in(slice_, flags, *, compiler, baseline=True, on_stage=None):
    assert compiler.version == '1.2.3'
    asked.append((str(slice_), list(flags), baseline))
    return {'tuned': step, 'versions': VERSIONS}

  monkeypatch.setattr(virtual_slice, 'missing', lambda compiler: None)
  monkeypatch.setattr(
    tpu_compiler, 'find', lambda folder: TPUCompiler(None, '1.2.3')
  )
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
  assert result.exit_code == 0
  found = json.loads(result.stdout)
  assert found['fits']
  assert found['does_not_fit_because'] is None
  assert found['compiled']['versions'] == VERSIONS
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
  assert result.exit_code == 1
  assert compiled == []
  assert result.stderr == (
    'dst-t5x: this run does not fit on v4:2x2x1 with NUM_PARTITIONS=1: what is '
    'kept, and the gradients, take 124.47 GiB of the 30.75 GiB of each device; '
    'it fits with no NUM_PARTITIONS: take a larger slice\n'
  )


def test_a_split_that_would_fit_is_named(no_libtpu):
  result = run(*XXL, '--num-partitions', '1', '--json')
  assert result.exit_code == 1
  found = json.loads(result.stdout)
  assert not found['fits']
  assert found['does_not_fit_because'] in result.stderr
  assert 'NUM_PARTITIONS=2 would do' in result.stderr


@pytest.mark.parametrize('json_too', [(), ('--json',)])
@pytest.mark.parametrize(
  ('needs', 'why'),
  [
    (
      {'bytes_per_device': {**FITS['bytes_per_device'], 'peak': 100 * GIB}},
      'a step takes 100.00 GiB of the 95.74 GiB of each device',
    ),
    ({'bytes_per_device': None, 'why': 'RESOURCE_EXHAUSTED'}, 'RESOURCE_EXHA'),
  ],
)
def test_a_step_that_does_not_fit_fails(compiled, step, needs, why, json_too):
  step.update(needs, fits=False)
  result = run(*XXL, *json_too)
  assert result.exit_code == 1
  assert len(compiled) == 1
  assert f'does not fit on v5p:4x4x4: {why}' in result.stderr
  if json_too:
    found = json.loads(result.stdout)
    assert (found['fits'], found['compiled']['fits']) == (False, False)


def test_says_what_compiled_it(compiled):
  assert 'libtpu 1.2.3, jax 4.5.6' in run(*XXL).output


def test_a_folder_without_libtpu_is_refused(tmp_path, monkeypatch):
  result = run(*XXL, '--libtpu', str(tmp_path))
  assert result.exit_code == 2
  assert f"--libtpu names '{tmp_path}', which holds no libtpu" in result.stderr
  monkeypatch.setenv(tpu_compiler.VARIABLE, str(tmp_path))
  result = run(*XXL)
  assert result.exit_code == 2
  assert 'DST_T5X_LIBTPU names' in result.stderr
  # Nothing is compiled, so nothing is missed.
  assert run(*XXL, '--bytes-only').exit_code == 0


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
