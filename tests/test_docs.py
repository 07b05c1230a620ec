"""What the documentation shows is what happens."""

import doctest
import importlib
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
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def _modules() -> list[str]:
  package = Path(dst_t5x.__file__).parent
  found = []
  for prefix, folder in (
    ('dst_t5x', package),
    ('dst_t5x.tasks', REPOSITORY / 'tasks'),
    ('dst_t5x.launch', REPOSITORY / 'launch'),
  ):
    for path in folder.rglob('*.py'):
      parts = path.relative_to(folder).with_suffix('').parts
      if parts[-1] == '__init__':
        parts = parts[:-1]
      # In a wheel, the mapped packages are found twice.
      found.append('.'.join((prefix, *parts)))
  return sorted(set(found))


MODULES = _modules()
EXAMPLES = re.findall(
  r'^```python\n(.*?)^```\n+^```text\n(.*?)^```$',
  README.read_text() if README.exists() else '',
  re.M | re.S,
)


NEED_T5X = ('dst_t5x.hooks', 'dst_t5x.planning.compiled')


@pytest.mark.parametrize('name', MODULES)
def test_docstrings(name):
  if name.startswith(NEED_T5X) and gin_path.t5x_root() is None:
    pytest.skip('imports T5X, which is not installed')
  module = importlib.import_module(name)
  strict = name.split('.')[1:2] in (['core'], ['arrays'], ['delta'])
  with jax.numpy_dtype_promotion('strict' if strict else 'standard'):
    result = doctest.testmod(module, optionflags=FLAGS)
  assert result.failed == 0, 'see the captured output'


def test_docstrings_have_examples():
  # Guards the test above: the wrappers of the type checker, or a change in how
  # modules are found, must not hide the examples from it.
  module = importlib.import_module('dst_t5x.arrays.paths')
  assert doctest.testmod(module).attempted >= 2


def test_readme_has_an_example():
  assert EXAMPLES


@pytest.mark.parametrize(('code', 'printed'), EXAMPLES)
def test_readme_example_prints_what_it_says(code, printed, tmp_path):
  run = subprocess.run(
    [sys.executable, '-c', code],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 0, run.stderr
  assert run.stdout.strip() == printed.strip()


def test_readme_names_commands_that_exist():
  blocks = re.findall(
    r'^```(?:bash|sh|console)?\n(.*?)^```$', README.read_text(), re.M | re.S
  )
  named = re.findall(r'\bdst-t5x (?!-)([\w-]+)', '\n'.join(blocks))
  assert named
  assert set(named) <= set(cli.COMMANDS)
