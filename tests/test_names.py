"""How the tree is cut into folders and modules."""

import collections
import pathlib

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
ROOTS = ('dst_t5x', 'launch', 'tasks', 'benchmarks')
MODULES = sorted(
  path.relative_to(REPOSITORY)
  for root in ROOTS
  for path in (REPOSITORY / root).rglob('*.py')
  if path.name not in ('__init__.py', '__main__.py')
)
FOLDERS = sorted({path.parent for path in MODULES})


def test_all_roots_are_seen():
  assert {path.parts[0] for path in MODULES} == set(ROOTS)


def test_a_module_name_occurs_once():
  # Else a search for a name, or a traceback that is cut, leaves the module
  # open.
  places = collections.defaultdict(list)
  for path in MODULES:
    places[path.stem].append(str(path))
  assert {n: p for n, p in places.items() if len(p) > 1} == {}


def test_few_modules_lie_directly_in_the_package():
  modules = [p.name for p in MODULES if p.parent == pathlib.Path('dst_t5x')]
  assert len(modules) <= 8, modules


@pytest.mark.parametrize('folder', FOLDERS, ids=str)
def test_a_folder_has_at_most_20_modules(folder):
  modules = [path.name for path in MODULES if path.parent == folder]
  assert len(modules) <= 20, modules


@pytest.mark.parametrize('name', ['utils', 'common', 'helpers', 'misc'])
def test_a_module_is_named_after_its_idea(name):
  assert [str(path) for path in MODULES if path.stem == name] == []
