"""Which files a run reads, and in which order gin takes what they say."""

import pytest

from dst_t5x.recipes import gin_files, gin_flags, gin_path, macros
from dst_t5x.recipes.gin_flags import GinFlags


@pytest.fixture
def here(tmp_path, monkeypatch):
  """An empty working directory; returns a function that writes a file."""
  working = tmp_path / 'here'
  working.mkdir()
  monkeypatch.chdir(working)

  def write(name, text):
    path = working / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path

  return write


def names(flags):
  return [file.name for file in gin_files.read(flags).files]


def test_looks_here_then_in_search_paths_then_among_ours(here):
  place = 'methods/dst.gin'
  ours = gin_files.locate(place)
  assert (ours.path, ours.installed) == (gin_path.root() / place, True)
  there = here('there/methods/dst.gin', '')
  found = gin_files.locate(place, ['there'])
  assert (found.path.resolve(), found.installed) == (there, False)
  mine = here(place, '')
  found = gin_files.locate(place, ['there'])
  assert (found.path.resolve(), found.installed) == (mine, False)


def test_our_folder_as_a_search_path_is_still_ours(here):
  root = str(gin_path.root())
  assert gin_files.locate('methods/dst.gin', [root]).installed


def test_ours_by_another_name_is_a_file_of_the_users(here):
  # Other machines do not find it under this name.
  path = gin_path.root() / 'methods' / 'dst.gin'
  assert not gin_files.locate(str(path)).installed


def test_t5x_files_are_installed_but_not_what_lies_beside(
  here, tmp_path, monkeypatch
):
  packages = tmp_path / 'packages'
  for name in ('t5x', 'other'):
    (packages / name).mkdir(parents=True)
    (packages / name / 'a.gin').touch()
  monkeypatch.setattr(gin_path, 't5x_root', lambda: packages)
  assert gin_files.locate('t5x/a.gin').installed
  assert not gin_files.locate('other/a.gin').installed


def test_included_files_are_read_in_their_place(here):
  here('mine.gin', "A = 1\nB = 1\ninclude 'base.gin'\nC = 3\n")
  here('base.gin', "include 'methods/dst.gin'\nB = 2\nC = 2\n")
  flags = GinFlags(('mine.gin', 'base.gin'), ('A=4',))
  assert names(flags) == ['mine.gin', 'base.gin', 'methods/dst.gin']
  bound = macros.read(flags._replace(files=('mine.gin',)))
  assert [bound[name] for name in 'ABC'] == [4, 2, 3]


def test_a_file_that_includes_itself_is_refused(here):
  here('a.gin', "include 'b.gin'\n")
  here('b.gin', "include 'a.gin'\n")
  with pytest.raises(gin_flags.RecipeError, match=r'a\.gin includes itself'):
    names(GinFlags(('a.gin',)))


def test_what_the_user_binds_is_told_from_what_our_files_bind(here):
  here('mine.gin', "include 'runs/finetune_t5x.gin'\nA = 1\n")
  flags = GinFlags(('methods/dst.gin', 'mine.gin'), ('B=2', 'C.d=3'))
  assert macros.bound_by_user(flags) == {'A': 1, 'B': 2}


def test_values_of_macros_within_values_are_followed():
  bound = macros.read(
    GinFlags(bindings=('N=2', 'L={"inputs": %N, "all": [%N, (%N, 3)]}'))
  )
  assert macros.value('L', bound) == {'inputs': 2, 'all': [2, (2, 3)]}


def test_mentioned_are_macros_bound_or_used_but_not_by_bindings(here):
  here(
    'mine.gin',
    "include 'base.gin'\nf.x = [%USED, {'a': %DEEP}]\ns/SCOPED = 1\n",
  )
  here('base.gin', 'BOUND = @f()\n')
  flags = GinFlags(('mine.gin',), ('GIVEN=%OTHER',))
  assert macros.mentioned(flags) == {'USED', 'DEEP', 'BOUND', 'SCOPED'}


def test_a_string_without_quotes_is_shown_with_them():
  with pytest.raises(gin_flags.RecipeError) as caught:
    macros.read(GinFlags(bindings=('MODEL_DIR=gs://b/r',)))
  assert '--gin.MODEL_DIR="\'gs://b/r\'"' in str(caught.value)
