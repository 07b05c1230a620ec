"""The commands as a user types them, on a tiny seed and a tiny file."""

import json
import re

import click.testing
import jax
import pytest

from dst_t5x import seeds
from dst_t5x.commands import cli
from dst_t5x.network import transformer
from dst_t5x.network.network_config import NetworkConfig

CONFIG = NetworkConfig(264, 8, 2, 1, 1, 4, 16)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  folder = tmp_path_factory.mktemp('commands')
  params = jax.device_get(transformer.init_params(CONFIG, jax.random.key(0)))
  seeds.write(folder / 'seed.safetensors', params, config=CONFIG.to_dict())
  (folder / 'pairs.tsv').write_text('1\teins\n2\tzwei\n' * 8)
  (folder / 'prompts.txt').write_text('1\n2\x85\n')
  return folder


def call(*arguments, **kwargs):
  return click.testing.CliRunner().invoke(
    cli.main, [str(a) for a in arguments], **kwargs
  )


@pytest.fixture(scope='module')
def trained(files):
  result = call(
    'train', '--train-file', files / 'pairs.tsv',
    '--eval-file', files / 'pairs.tsv', '--seed', files / 'seed.safetensors',
    '--out', files / 'run', '--budget', '20', '--steps', '2',
    '--batch-size', '8', '--inputs-length', '8', '--targets-length', '8',
    '--quiet', '--json',
  )  # fmt: skip
  assert result.exit_code == 0, result.output
  return json.loads(result.stdout)


def test_train_on_a_text_file_reports_and_leaves_a_delta(files, trained):
  assert trained['step'] == 2
  assert trained['budget'] == 20
  assert trained['delta'] == str(files / 'run' / 'delta.safetensors')
  assert (
    trained['delta_bytes']
    == (files / 'run' / 'delta.safetensors').stat().st_size
  )
  (scores,) = trained['scores'].values()
  assert 0.0 <= scores['exact_match'] <= 100.0


def test_infer_with_and_without_delta(files, trained):
  common = (
    'infer', '--seed', files / 'seed.safetensors', '--json',
    '--inputs-length', '8', '--targets-length', '8',
  )  # fmt: skip
  plain = call(*common, '--input', files / 'prompts.txt')
  assert plain.exit_code == 0, plain.output
  rows = [json.loads(line) for line in plain.stdout.strip().split('\n')]
  assert [r['inputs'] for r in rows] == ['1', '2\x85']
  piped = call(*common, '--input', '-', input='1\n2\x85\n')
  assert piped.stdout == plain.stdout
  adapted = call(*common, '--delta', trained['delta'], '1')
  assert adapted.exit_code == 0, adapted.output
  assert json.loads(adapted.stdout)['inputs'] == '1'


def test_eval_of_a_file(files, trained):
  result = call(
    'eval', '--seed', files / 'seed.safetensors', '--delta', trained['delta'],
    '--eval-file', files / 'pairs.tsv', '--inputs-length', '8',
    '--targets-length', '8', '--json',
  )  # fmt: skip
  assert result.exit_code == 0, result.output
  (scores,) = json.loads(result.stdout)['scores'].values()
  (expected,) = trained['scores'].values()
  assert scores == expected


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['train'], 'either --gin_file'),
    (['train', '--train-file', 'a.tsv'], '--seed and --out'),
    (['train', '--gin_file=a.gin', '--epsilon', '0.1'], 'come from gin'),
    (['train', '--gin_file=a.gin', '--gin.X'], "'--gin.X'|No such option"),
    (['train', '--gin_file=no/such.gin'], 'no/such.gin'),
    (['infer', '--seed', 'no/such.safetensors', 'x'], 'no/such.safetensors'),
    (['infer', '--input', 'no/such.txt'], 'no/such.txt'),
    (['infer', 'x', '--input', 'y'], 'not both'),
    (['eval'], 'either --task or --eval-file'),
    (['eval', '--task', 'number_word'], 'number_word'),
    (['eval', '--task', 'a', '--import', 'no.such.module'], 'no.such.module'),
    (['quickstart', '--epsilon', '0'], r'epsilon=0'),
  ],
)
def test_mistakes_end_with_one_sentence(
  arguments, message, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  result = call(*arguments)
  assert result.exit_code == 2
  assert 'Traceback' not in result.output
  assert re.search(message, result.output.replace('\n', ' ')), result.output
  assert not list(tmp_path.iterdir())


def test_a_wrong_method_names_the_nearest(files, tmp_path):
  result = call(
    'train', '--train-file', files / 'pairs.tsv',
    '--seed', files / 'seed.safetensors', '--out', tmp_path / 'out',
    '--method', 'dts', '--epsilon', '0.1',
  )  # fmt: skip
  assert result.exit_code == 2
  assert "unknown method 'dts'; nearest: 'dst'" in result.output
  assert not (tmp_path / 'out').exists()


def test_a_file_with_a_third_column_names_its_line(files, tmp_path):
  bad = tmp_path / 'bad.tsv'
  bad.write_text('1\teins\n2\tzwei\tdrei\n')
  result = call(
    'train', '--train-file', bad, '--seed', files / 'seed.safetensors',
    '--out', tmp_path / 'out', '--epsilon', '0.1',
  )  # fmt: skip
  assert result.exit_code == 2
  assert 'bad.tsv' in result.output.replace('\n', '')
  assert '2' in result.output
  assert not (tmp_path / 'out').exists()
