"""The command line: fast help, and errors in one sentence."""

import errno
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from dst_t5x.commands import cli
from dst_t5x.recipes import gin_path


@pytest.fixture
def failing(monkeypatch):
  """Makes `dst-t5x gin-path` raise what is put into the list."""
  errors = []

  def raise_it():
    raise errors[0]

  monkeypatch.setattr(gin_path, 'search_paths', raise_it)
  return errors


def _run(*args: str, **kwargs):
  return CliRunner().invoke(cli.main, args, **kwargs)


@pytest.mark.parametrize(
  ('error', 'sentence'),
  [
    (ValueError('epsilon must be in (0, 1], not 0'),) * 2,
    (NotImplementedError('Orbax seeds cannot be read yet'),) * 2,
    (
      FileNotFoundError(errno.ENOENT, 'No such file or directory', 'a.tsv'),
      'a.tsv: No such file or directory',
    ),
    (
      PermissionError(errno.EACCES, 'Permission denied', '/run'),
      '/run: Permission denied',
    ),
    (
      OSError(errno.ENOSPC, 'No space left on device'),
      'No space left on device',
    ),
    (FileExistsError('the folder belongs to another run'),) * 2,
    (ValueError(), 'ValueError'),
  ],
)
def test_user_error_is_a_sentence(failing, error, sentence):
  failing.append(error)
  result = _run('gin-path')
  assert result.exit_code == 2
  assert result.stderr == f'dst-t5x: {sentence}\n'
  assert not result.stdout


def test_user_error_is_red_on_a_terminal(failing, monkeypatch):
  failing.append(ValueError('wrong'))
  monkeypatch.delenv('NO_COLOR', raising=False)
  assert '\x1b[31m' in _run('gin-path', color=True).stderr
  monkeypatch.setenv('NO_COLOR', '1')
  assert '\x1b[31m' not in _run('gin-path', color=True).stderr


@pytest.mark.parametrize(
  ('args', 'env'),
  [(['--traceback'], {}), ([], {'DST_T5X_TRACEBACK': '1'})],
)
def test_traceback_on_request(failing, args, env):
  failing.append(ValueError('wrong'))
  result = _run(*args, 'gin-path', env=env)
  assert result.exit_code == 2
  assert 'raise_it' in result.stderr
  assert result.stderr.endswith('dst-t5x: wrong\n')


def test_our_own_mistake_keeps_its_traceback(failing):
  failing.append(TypeError('unexpected'))
  result = _run('gin-path')
  assert result.exit_code == 1
  assert isinstance(result.exception, TypeError)


def test_interrupt(failing):
  failing.append(KeyboardInterrupt('saved; run the same command to go on'))
  result = _run('gin-path')
  assert result.exit_code == 130
  assert result.stderr == 'dst-t5x: saved; run the same command to go on\n'


def test_unknown_command_suggests_the_nearest():
  result = _run('gin-pth')
  assert result.exit_code == 2
  assert "no command 'gin-pth': did you mean 'gin-path'?" in result.stderr


def test_unknown_command_with_nothing_near_lists_all():
  result = _run('0000')
  assert result.exit_code == 2
  assert all(repr(name) in result.stderr for name in cli.COMMANDS)


def test_version():
  result = _run('--version')
  assert result.exit_code == 0
  assert result.stdout.startswith('dst-t5x, version ')


@pytest.mark.parametrize('name', cli.COMMANDS)
def test_every_command_is_there_and_has_help(name):
  context = click.Context(cli.main)
  command = cli.main.get_command(context, name)
  assert command.name == name
  assert command.get_short_help_str()


def test_commands_are_sorted():
  assert list(cli.COMMANDS) == sorted(cli.COMMANDS)


def test_help_imports_nothing_heavy():
  # What makes `--help` take seconds; the time itself is not tested.
  code = (
    'import sys\n'
    'from dst_t5x.commands import cli\n'
    'try:\n'
    "  cli.main(['--help'])\n"
    'except SystemExit:\n'
    '  pass\n'
    "heavy = {'jax', 'numpy', 'tensorflow', 'seqio', 'gin', 'matplotlib'}\n"
    'print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n'
  )
  run = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert 'gin-path' in run.stdout
  assert run.stderr == '[]\n'
