"""What README.md says of seeds is so."""

import importlib
import operator
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from click.testing import CliRunner

from dst_t5x import seeds
from dst_t5x.commands import cli
from dst_t5x.seeds import errors, layouts

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / 'dst_t5x' / 'seeds' / 'README.md').read_text()


def section(title):
  return TEXT.partition(f'\n## {title}\n')[2].partition('\n## ')[0]


ROUTE = re.findall(
  r'^(\d+)\. `([\w.]+)`: `([\w.]+)`',
  section('The way of a seed from the command line to arrays'),
  re.M,
)


def test_the_way_of_a_seed_is_numbered():
  assert [int(number) for number, _, _ in ROUTE] == list(range(1, 10))


@pytest.mark.parametrize(('number', 'module', 'function'), ROUTE)
def test_every_stay_exists(number, module, function):
  find = operator.attrgetter(function)
  assert callable(find(importlib.import_module(module)))


def test_a_seed_goes_that_way_and_no_other():
  """The functions of the list are called, in its order."""
  code = (
    'import importlib, operator, sys, threading\n'
    'from dst_t5x.commands import adapted_models\n'
    f'route = {[(module, function) for _, module, function in ROUTE]!r}\n'
    'codes = {}\n'
    'for module, name in route:\n'
    '  find = operator.attrgetter(name)\n'
    '  function = find(importlib.import_module(module))\n'
    '  codes[function.__code__] = (module, name)\n'
    'calls = []\n'
    'def profile(frame, event, _):\n'
    "  call = codes.get(frame.f_code) if event == 'call' else None\n"
    '  if call is not None and call not in calls:\n'
    '    calls.append(call)\n'
    'sys.setprofile(profile)\n'
    'threading.setprofile(profile)\n'
    f'adapted_models.load({str(seeds.bundled_path())!r}, None)\n'
    'sys.setprofile(None)\n'
    # Tables of tensors are nested, too, to check their names.
    "nest = ('dst_t5x.arrays.paths', 'unflatten')\n"
    'without = [[s for s in way if s != nest] for way in (calls, route)]\n'
    'assert nest in calls and without[0] == without[1], calls\n'
  )
  run = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=False
  )
  assert run.returncode == 0, run.stderr


def test_the_table_has_every_layout():
  rows = re.findall(r'^\| `(\w+)` \|', section('Layouts'), re.M)
  assert tuple(rows) == layouts.NAMES


def test_its_commands_work(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  commands = re.findall(r'^dst-t5x (.*)$', section('Commands'), re.M)
  assert len(commands) == 4
  for command in commands:
    result = CliRunner().invoke(cli.main, shlex.split(command))
    assert result.exit_code == 0, result.output
  assert (tmp_path / 'my-run' / 'checkpoint_1000').is_dir()


def test_its_example_prints_what_it_says(capsys):
  ((code, printed),) = re.findall(
    r'^```python\n(.*?)^```\n+^```text\n(.*?)^```$', TEXT, re.M | re.S
  )
  exec(code, {})
  assert capsys.readouterr().out == printed


@pytest.mark.parametrize('name', re.findall(r'`(\w+Error)`', TEXT))
def test_its_errors_exist(name):
  assert issubclass(getattr(errors, name), errors.SeedError)
