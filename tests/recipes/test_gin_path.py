"""The folders for --gin_search_paths."""

import shutil
import sys

import pytest
from click.testing import CliRunner

import dst_t5x
from dst_t5x.commands import cli
from dst_t5x.recipes import gin_path


@pytest.fixture
def layout(tmp_path, monkeypatch):
  """Puts the module into an empty folder, with no T5X to be found."""
  package = tmp_path / 'place' / 'dst_t5x'
  package.mkdir(parents=True)
  monkeypatch.setattr(dst_t5x, '__file__', str(package / '__init__.py'))
  monkeypatch.setattr(sys, 'path', [str(tmp_path / 'path')])
  monkeypatch.delitem(sys.modules, 't5x', raising=False)
  return package


def test_root_has_methods():
  assert (gin_path.root() / 'methods' / 'dst.gin').is_file()


def test_wheel(layout):
  (layout / 'gin').mkdir()
  assert gin_path.root() == layout / 'gin'
  assert gin_path.search_paths() == (layout / 'gin',)


def test_checkout(layout):
  (layout.parent / 'gin').mkdir()
  (layout.parent / 'pyproject.toml').touch()
  assert gin_path.root() == layout.parent / 'gin'


def test_gin_config_is_not_taken_for_our_files(layout):
  (layout.parent / 'gin').mkdir()
  with pytest.raises(FileNotFoundError, match='no gin files'):
    gin_path.root()


def test_t5x_is_found_but_not_imported(layout, tmp_path):
  (layout / 'gin').mkdir()
  t5x = tmp_path / 'path' / 't5x'
  t5x.mkdir(parents=True)
  assert gin_path.t5x_root() is None  # A folder is no package.
  (t5x / '__init__.py').write_text('raise ImportError')
  assert gin_path.search_paths() == (layout / 'gin', tmp_path / 'path')


def test_comma(layout, monkeypatch):
  place = layout.parent.parent / 'a,b' / 'dst_t5x'
  shutil.copytree(layout, place)
  (place / 'gin').mkdir()
  monkeypatch.setattr(dst_t5x, '__file__', str(place / '__init__.py'))
  with pytest.raises(ValueError, match='comma'):
    gin_path.search_paths()


def test_command_joins_with_commas(layout, tmp_path):
  (layout / 'gin').mkdir()
  t5x = tmp_path / 'path' / 't5x'
  t5x.mkdir(parents=True)
  (t5x / '__init__.py').touch()
  result = CliRunner().invoke(cli.main, ['gin-path'])
  assert result.stdout == f'{layout / "gin"},{tmp_path / "path"}\n'
