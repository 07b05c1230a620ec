"""What several commands share: options, and messages that name them."""

import ast
import collections
import pathlib
import re
import warnings
from typing import Any

import click
import pytest
from click.testing import CliRunner

import dst_t5x.tasks
from dst_t5x.commands import cli
from dst_t5x.recipes import gin_path
from dst_t5x.standalone import training
from dst_t5x.standalone.quiet_tensorflow import seqio

# Each means the same wherever it is, apart from launch/, which starts T5X.
SHARED = (
  '--cache-dir --import --keep --quiet --random-seed --split --seed-vocab '
  '--steps --tfds-data-dir'
).split()
# Options of other programs, as messages and texts name them.
FOREIGN = {
  '--gin': 'gin bindings, --gin.NAME=VALUE',
  '--tfds_data_dir': 'T5X',
  '--seqio_additional_cache_dirs': 'T5X',
  '--tasks': 'seqio_cache_tasks',
  '--output_cache_dir': 'seqio_cache_tasks',
  '--no-deps': 'pip',
  '--target': 'pip',
}


def commands():
  """(name, command) of every command that is no group."""
  waiting: list[tuple[str, Any]] = [('dst-t5x', cli.main)]
  while waiting:
    name, command = waiting.pop()
    if isinstance(command, click.Group):
      context = click.Context(command)
      waiting += [
        (f'{name} {each}', command.get_command(context, each))
        for each in command.list_commands(context)
      ]
    else:
      yield name, command


def options():
  """(command, option) of every command."""
  for name, command in commands():
    for parameter in command.params:
      if isinstance(parameter, click.Option):
        yield name, parameter


def test_a_shared_option_has_one_help_text():
  texts = collections.defaultdict(set)
  for name, option in options():
    if option.opts[0] in SHARED and not name.startswith('dst-t5x launch'):
      texts[option.opts[0]].add((option.help, option.metavar))
  assert set(texts) == set(SHARED)
  for option, found in texts.items():
    assert len(found) == 1, option
    assert all(help_text for help_text, _ in found), option


@pytest.mark.parametrize(
  ('command', 'expected'),
  [
    ('train', '--import --tfds-data-dir --cache-dir --keep'),
    ('eval', '--import --tfds-data-dir --cache-dir'),
    ('tasks show', '--import --tfds-data-dir --cache-dir'),
    ('tasks list', '--import'),
    ('quickstart', '--keep'),
  ],
)
def test_commands_that_read_tasks_have_their_options(command, expected):
  declared = {
    each
    for name, option in options()
    if name == f'dst-t5x {command}'
    for each in option.opts
  }
  assert set(expected.split()) <= declared


def _strings(path):
  """The texts in a module."""
  tree = ast.parse(path.read_text())
  for node in ast.walk(tree):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
      yield node.value


def test_messages_name_options_that_exist():
  known = {each for _, option in options() for each in option.opts}
  known |= {each for option in cli.main.params for each in option.opts}
  known |= {*FOREIGN, '--help'}
  root = pathlib.Path(cli.__file__).resolve().parents[1]
  folders = [root / 'commands', root / 'standalone']
  folders.append(pathlib.Path(dst_t5x.tasks.__file__).resolve().parent)
  unknown = {
    (path.name, word)
    for folder in folders
    for path in folder.rglob('*.py')
    for text in _strings(path)
    for word in re.findall(r'(?<![\w-])--[a-z][\w-]*', text)
    if word not in known
  }
  assert not unknown


class _CalledError(Exception):
  """Ends a command where it would train."""


@pytest.fixture
def trained(monkeypatch):
  """The settings that `train` was called with."""
  calls = []

  def train(settings, **arguments):
    calls.append(settings)
    raise _CalledError

  monkeypatch.setattr(training, 'train', train)
  cache_dirs = list(seqio.get_global_cache_dirs())
  yield calls
  seqio.set_global_cache_dirs(cache_dirs)
  seqio.set_tfds_data_dir_override(None)


def run(*arguments):
  return CliRunner().invoke(cli.main, [str(each) for each in arguments])


GIN = (
  'train', '--gin_file=methods/dst.gin', '--gin_file=tasks/number_words.gin',
  '--gin_file=runs/finetune.gin', '--seed', 'bundled', '--gin.EPSILON=0.01',
  '--gin.TRAIN_STEPS=2',
)  # fmt: skip


def test_train_reads_a_cache_and_imports_a_module(
  trained, tmp_path, monkeypatch
):
  (tmp_path / 'options_imported.py').write_text('imported = True\n')
  monkeypatch.syspath_prepend(str(tmp_path))
  result = run(
    *GIN, '--out', tmp_path / 'run', '--cache-dir', tmp_path,
    '--import', 'options_imported', '--tfds-data-dir', tmp_path / 'tfds',
  )  # fmt: skip
  assert isinstance(result.exception, _CalledError), result.output
  assert trained[0].use_cached
  assert str(tmp_path) in seqio.get_global_cache_dirs()
  result = run(*GIN, '--import', 'no_such_module', '--import', 'nor_this')
  assert "cannot import module 'no_such_module'" in result.stderr
  assert "cannot import module 'nor_this'" in result.stderr


def test_train_keeps_so_many_checkpoints(trained, tmp_path):
  (tmp_path / 'a.tsv').write_text('x\ty\n')
  arguments = (
    'train', '--train-file', tmp_path / 'a.tsv', '--seed', 'bundled',
    '--out', tmp_path / 'run', '--epsilon', '0.01',
  )  # fmt: skip
  missing = run('train', '--train-file', 'no.tsv', '--eval-file', 'nor.tsv',
                '--seed', 'bundled', '--out', tmp_path / 'run')  # fmt: skip
  assert "'no.tsv' and 'nor.tsv' cannot be read" in missing.stderr
  run(*arguments, '--keep', '5')
  assert trained[0].keep == 5
  result = run(*arguments, '--cache-dir', tmp_path)
  assert result.exit_code == 2
  assert '--train-file is read as it is' in result.stderr
  result = run(*GIN, '--keep', '5')
  assert 'these come from gin: --keep' in result.stderr


def test_a_warning_is_a_sentence(monkeypatch):
  def search_paths():
    warnings.warn('a library\n  says this', FutureWarning, stacklevel=2)
    warnings.warn('50 % is cut', UserWarning, stacklevel=2)
    return []

  monkeypatch.setattr(gin_path, 'search_paths', search_paths)
  shown_before = warnings.showwarning
  with warnings.catch_warnings():
    warnings.simplefilter('always')
    result = run('gin-path')
  assert result.exit_code == 0
  assert result.stderr.split('\n') == [
    'dst-t5x: warning: a library says this',
    'dst-t5x: warning: 50 % is cut',
    '',
  ]
  assert warnings.showwarning is shown_before
