"""The wheel, used outside the repository, is what the checkout is."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# Runs where no source is near, and prints what an installation offers.
FACTS = """
import json, pathlib, sys
import dst_t5x, dst_t5x.tasks
from dst_t5x.commands import cli
from dst_t5x.recipes import gin_path
from dst_t5x import seeds
from dst_t5x.tasks import number_words
root = gin_path.root()
try:
  cli.main(['gin-path'], standalone_mode=False)
finally:
  sys.stdout.flush()
print(json.dumps({
  'package': str(pathlib.Path(dst_t5x.__file__).parent),
  'tasks': str(pathlib.Path(number_words.__file__).parent),
  'root': str(root),
  'gin': sorted(str(p.relative_to(root)) for p in root.rglob('*.gin')),
  'seed': seeds.read('bundled').fingerprint,
}))
"""


def _files(folder: str) -> set[str]:
  """All files of a folder but what Python leaves there."""
  return {
    str(path.relative_to(REPOSITORY / folder))
    for path in (REPOSITORY / folder).rglob('*')
    if path.is_file() and '__pycache__' not in path.parts
  }


def _facts(where: Path, **env: str) -> dict:
  run = subprocess.run(
    [sys.executable, '-c', FACTS],
    cwd=where,
    env={**os.environ, **env},
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 0, run.stderr[-2000:]
  search_paths, facts = run.stdout.strip().split('\n')
  return {'search_paths': search_paths, **json.loads(facts)}


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """The wheel, built from a copy, as a build leaves files in its source."""
  place = tmp_path_factory.mktemp('wheel')
  source = shutil.copytree(
    REPOSITORY,
    place / 'source',
    ignore=shutil.ignore_patterns(
      '.*', '__pycache__', '*.egg-info', 'build', 'dist'
    ),
  )
  run = subprocess.run(
    [sys.executable, '-m', 'build', '--wheel', '--no-isolation']
    + ['--outdir', str(place / 'dist'), str(source)],
    cwd=place,
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 0, run.stdout + run.stderr
  (path,) = (place / 'dist').glob('*.whl')
  return path


@pytest.fixture(scope='module')
def names(wheel):
  return set(zipfile.ZipFile(wheel).namelist())


def test_nothing_but_the_package(wheel, names):
  assert wheel.name.endswith('-py3-none-any.whl')
  assert {re.sub('-[0-9.]+[.]', '-N.', n.split('/')[0]) for n in names} == {
    'dst_t5x',
    'dst_t5x-N.dist-info',
  }


@pytest.mark.parametrize(
  ('folder', 'installed'),
  [
    ('dst_t5x', 'dst_t5x/'),
    ('tasks', 'dst_t5x/tasks/'),
    ('gin', 'dst_t5x/gin/'),
    ('launch', 'dst_t5x/launch/'),
  ],
)
def test_every_file_is_there(names, folder, installed):
  files = _files(folder)
  assert files
  assert {installed + file for file in files} <= names


def test_licence_and_command(wheel):
  archive = zipfile.ZipFile(wheel)
  (licence,) = [n for n in archive.namelist() if n.endswith('/LICENSE')]
  assert archive.read(licence) == (REPOSITORY / 'LICENSE').read_bytes()
  (points,) = [n for n in archive.namelist() if n.endswith('entry_points.txt')]
  assert b'dst-t5x = dst_t5x.commands.cli:main' in archive.read(points)


def _imported(folder: str) -> set[str]:
  names = set()
  for path in (REPOSITORY / folder).rglob('*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Import):
        names |= {alias.name.split('.')[0] for alias in node.names}
      elif isinstance(node, ast.ImportFrom) and not node.level:
        names.add(str(node.module).split('.')[0])
  return names - {'dst_t5x', '__gin__'} - set(sys.stdlib_module_names)


def test_everything_imported_is_declared():
  # Else a package that another one happens to bring today is missing tomorrow.
  project = tomllib.loads((REPOSITORY / 'pyproject.toml').read_text())[
    'project'
  ]
  declared = {
    re.split(r'[^\w.-]', line)[0].lower().replace('_', '-')
    for line in [
      *project['dependencies'],
      *project['optional-dependencies']['t5x'],
      *project['optional-dependencies']['launch'],
    ]
  }
  providers = importlib.metadata.packages_distributions()
  for name in sorted(
    _imported('dst_t5x') | _imported('tasks') | _imported('launch')
  ):
    if name in ('t5x', 'airio', 'jestimator'):
      continue  # They come from their repositories.
    found = {x.lower().replace('_', '-') for x in providers.get(name, [name])}
    assert found & declared, f'{name} is imported but not declared'


def test_wheel_works_outside_the_repository(wheel, tmp_path):
  # A wheel without compiled code is installed by unpacking it; PYTHONPATH
  # comes before the editable install that this environment may have.
  site = tmp_path / 'site'
  zipfile.ZipFile(wheel).extractall(site)
  facts = _facts(tmp_path, PYTHONPATH=str(site))
  assert facts['package'] == str(site / 'dst_t5x')
  assert facts['tasks'] == str(site / 'dst_t5x' / 'tasks')
  assert facts['root'] == str(site / 'dst_t5x' / 'gin')
  assert facts['search_paths'].split(',')[0] == facts['root']
  assert set(facts['gin']) == {f for f in _files('gin') if f[-4:] == '.gin'}

  launcher = subprocess.run(
    [sys.executable, '-m', 'dst_t5x.launch.local', '--help'],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(site)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert launcher.returncode == 0, launcher.stderr
  assert '--processes' in launcher.stdout

  here = _facts(tmp_path)
  assert facts['gin'] == here['gin']
  assert facts['seed'] == here['seed']
