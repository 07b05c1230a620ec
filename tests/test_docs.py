"""What the documentation shows is what happens."""

import doctest
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import dst_t5x
from dst_t5x.commands import cli
from dst_t5x.recipes import gin_path

REPOSITORY = Path(__file__).resolve().parents[1]
README = REPOSITORY / 'README.md'
ROOMS = ('dst_t5x', 'gin', 'launch', 'tasks', 'benchmarks')
DOCUMENTS = sorted(
  str(path.relative_to(REPOSITORY))
  for path in (
    *REPOSITORY.glob('*.md'),
    *(p for room in ROOMS for p in (REPOSITORY / room).rglob('*.md')),
  )
)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# Modules that import T5X.
NEED_T5X = ('dst_t5x.hooks', 'dst_t5x.planning.compiled')
# Rooms whose examples run with strict dtype promotion, as their tests do.
STRICT = ('core', 'arrays', 'delta')


def _modules() -> list[str]:
  package = Path(dst_t5x.__file__).parent
  names = []
  for prefix, folder in (
    ('dst_t5x', package),
    ('dst_t5x.tasks', REPOSITORY / 'tasks'),
    ('dst_t5x.launch', REPOSITORY / 'launch'),
  ):
    for path in folder.rglob('*.py'):
      parts = path.relative_to(folder).with_suffix('').parts
      if parts[-1] == '__main__':
        continue
      if parts[-1] == '__init__':
        parts = parts[:-1]
      # In a wheel, the mapped packages are found twice.
      names.append('.'.join((prefix, *parts)))
  return sorted(set(names))


def _examples() -> list[tuple[str, str, str]]:
  """Programs in the documents that are followed by what they print."""
  return [
    (name, code, printed)
    for name in DOCUMENTS
    for code, printed in re.findall(
      r'^```python\n(.*?)^```\n+^```text\n(.*?)^```$',
      (REPOSITORY / name).read_text(),
      re.M | re.S,
    )
  ]


EXAMPLES = _examples()


@pytest.mark.parametrize('name', _modules())
def test_docstrings(name):
  if name.startswith(NEED_T5X) and gin_path.t5x_root() is None:
    pytest.skip('imports T5X, which is not installed')
  module = importlib.import_module(name)
  strict = name.split('.')[1:2] and name.split('.')[1] in STRICT
  with jax.numpy_dtype_promotion('strict' if strict else 'standard'):
    result = doctest.testmod(module, optionflags=FLAGS)
  assert result.failed == 0, 'see the captured output'


def test_docstrings_have_examples():
  # Guards the test above: the wrappers of the type checker, or a change in how
  # modules are found, must not hide the examples from it.
  module = importlib.import_module('dst_t5x.arrays.paths')
  assert doctest.testmod(module).attempted >= 2


def test_the_readme_is_short():
  assert len(README.read_text().splitlines()) <= 150


def test_documents_have_examples():
  assert {name for name, _, _ in EXAMPLES} >= {
    'README.md',
    'dst_t5x/delta/README.md',
  }


@pytest.mark.parametrize(
  ('code', 'printed'),
  [(code, printed) for _, code, printed in EXAMPLES],
  ids=[f'{name}-{i}' for i, (name, _, _) in enumerate(EXAMPLES)],
)
def test_an_example_prints_what_it_says(code, printed, tmp_path):
  run = subprocess.run(
    [sys.executable, '-c', code],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 0, run.stderr
  assert run.stdout.strip() == printed.strip()


@pytest.mark.parametrize('name', DOCUMENTS)
def test_links_lead_somewhere(name):
  text = (REPOSITORY / name).read_text()
  for target in re.findall(r'\]\(([^)#\s]+)(?:#[^)]*)?\)', text):
    if not target.startswith(('http://', 'https://')):
      assert ((REPOSITORY / name).parent / target).exists(), target


@pytest.mark.parametrize('name', DOCUMENTS)
def test_named_commands_exist(name):
  blocks = re.findall(
    r'^```(?:bash|sh|console)?\n(.*?)^```$',
    (REPOSITORY / name).read_text(),
    re.M | re.S,
  )
  named = re.findall(r'\bdst-t5x (?!-)([\w-]+)', '\n'.join(blocks))
  assert set(named) <= set(cli.COMMANDS)
  assert named or name != 'README.md'


@pytest.mark.parametrize('name', DOCUMENTS)
def test_named_modules_exist(name):
  """`python -m …` in commands, and files in backticks, are there."""
  text = (REPOSITORY / name).read_text()
  for module in re.findall(r'python -m (dst_t5x[\w.]+)', text):
    assert importlib.util.find_spec(module) is not None, module
  for script in re.findall(r'`(benchmarks/\w+\.py)', text):
    assert (REPOSITORY / script).is_file(), script
  for file in re.findall(
    r'(?:--gin_file=|`)((?:models|methods|tasks|runs|hosts|experiments)/'
    r'[\w/]+\.gin)',
    text,
  ):
    assert (gin_path.root() / file).is_file(), file
