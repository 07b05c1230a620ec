"""The type checker sees a wrong call from any room to any other.

tasks/ and launch/ lie beside dst_t5x/ and are dst_t5x.tasks and dst_t5x.launch
only when installed. A checker that cannot find a module says nothing about
calls of it; so wrong calls are planted here, and each must be reported.
"""

import ast
import json
import pathlib
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = {
  'dst_t5x': 'dst_t5x',
  'launch': 'dst_t5x.launch',
  'tasks': 'dst_t5x.tasks',
}
# Folder of the module that calls, folder of the module that is called.
PAIRS = [
  ('dst_t5x/commands', 'tasks'),
  ('dst_t5x/commands', 'dst_t5x/delta'),
  ('dst_t5x/standalone', 'tasks'),
  ('tasks', 'tasks'),
  ('launch', 'launch'),
  ('launch', 'dst_t5x/planning'),
  ('launch', 'dst_t5x/commands'),
]


class Plant(NamedTuple):
  """Lines to append to a file, and which of them are wrong."""

  file: str
  code: str
  wrong: tuple[int, ...]


def _modules(folder):
  return sorted(
    path
    for path in (REPOSITORY / folder).rglob('*.py')
    if not path.name.startswith('__')
  )


def _name(path):
  """The name of a module as installed."""
  first, *rest = path.relative_to(REPOSITORY).with_suffix('').parts
  return '.'.join([PACKAGES[first], *rest])


def _takes_text(path):
  """The name of a function of a module whose first argument is a str."""
  for node in ast.parse(path.read_text()).body:
    if (
      isinstance(node, ast.FunctionDef)
      and not node.name.startswith('_')
      and not node.decorator_list
      and node.args.args
      and isinstance(node.args.args[0].annotation, ast.Name)
      and node.args.args[0].annotation.id == 'str'
    ):
      return node.name
  return None


def _plant(caller_folder, called_folder, files):
  """A module that is in no plant yet, with a wrong call of another one."""
  called = next(path for path in _modules(called_folder) if _takes_text(path))
  caller = next(
    path
    for path in _modules(caller_folder)
    if path != called and str(path.relative_to(REPOSITORY)) not in files
  )
  package, _, module = _name(called).rpartition('.')
  if caller.parent == called.parent and caller_folder == 'tasks':
    package = ''  # These modules import each other so.
  lines = [
    '',
    f'from {package or "."} import {module} as planted',
    'planted.no_such_name',
    f'planted.{_takes_text(called)}(object())',
  ]
  file = str(caller.relative_to(REPOSITORY))
  return Plant(file, '\n'.join(lines) + '\n', (2, 3))


def _reported(checkout, files):
  """Lines with an error by file, as basedpyright finds them."""
  run = subprocess.run(
    [sys.executable, '-m', 'basedpyright', '--outputjson']
    + ['--pythonpath', sys.executable, *files],
    cwd=checkout,
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode in (0, 1), run.stdout + run.stderr
  report = json.loads(run.stdout)
  assert report['summary']['filesAnalyzed'] == len(files)
  lines = {file: set() for file in files}
  for each in report['generalDiagnostics']:
    if each['severity'] == 'error':
      file = pathlib.Path(each['file']).resolve().relative_to(checkout)
      lines[str(file)].add(each['range']['start']['line'])
  return lines


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
  """What the type checker reads of this repository, to be changed."""
  place = tmp_path_factory.mktemp('types').resolve()
  for folder in (*PACKAGES, '.ci/types'):
    shutil.copytree(
      REPOSITORY / folder,
      place / folder,
      symlinks=True,
      ignore=shutil.ignore_patterns('__pycache__'),
    )
  shutil.copy(REPOSITORY / 'pyproject.toml', place)
  return place


def test_wrong_calls_between_rooms_are_reported(checkout):
  plants = []
  for caller_folder, called_folder in PAIRS:
    files = [plant.file for plant in plants]
    plants.append(_plant(caller_folder, called_folder, files))
  files = [plant.file for plant in plants]
  assert _reported(checkout, files) == {file: set() for file in files}

  expected = {}
  for plant in plants:
    path = checkout / plant.file
    text = path.read_text()
    path.write_text(text + plant.code)
    last = text.count('\n')
    expected[plant.file] = {last + line for line in plant.wrong}
  assert _reported(checkout, files) == expected
