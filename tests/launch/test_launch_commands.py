"""The front of all launchers."""

import subprocess
import sys

import pytest
from click import testing

from dst_t5x.commands import cli
from dst_t5x.launch import launch_commands


@pytest.mark.parametrize('words', [['--help'], ['launch', '--help']])
def test_help_imports_nothing_heavy(words):
  code = """
import sys
from dst_t5x.commands import cli
try:
  cli.main(sys.argv[1:])
except SystemExit:
  pass
heavy = {'jax', 'numpy', 'absl', 'xmanager', 'dst_t5x.launch.xm',
         'dst_t5x.launch.tpu', 'dst_t5x.launch.local'}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
  done = subprocess.run(
    [sys.executable, '-c', code, *words],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.stderr == '[]\n'
  assert 'launch' in done.stdout


@pytest.mark.parametrize('name', launch_commands.launch.modules)
def test_help_says_what_each_launcher_says_of_itself(name):
  listed = testing.CliRunner().invoke(cli.main, ['launch', '--help']).output
  own = testing.CliRunner().invoke(cli.main, ['launch', name, '--help']).output
  summary = own.split('\n\n')[1].strip()
  assert f'  {name}' in listed
  assert summary.splitlines()[0] in listed


def test_an_unknown_launcher():
  said = testing.CliRunner().invoke(cli.main, ['launch', 'tpuu'])
  assert said.exit_code == 2
  assert "did you mean 'tpu'?" in said.output
