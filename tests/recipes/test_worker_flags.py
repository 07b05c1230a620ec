"""What a launcher learns of a recipe that includes files."""

import pytest

from dst_t5x.recipes import gin_path, worker_flags
from dst_t5x.recipes.gin_flags import RecipeError


@pytest.fixture(autouse=True)
def recipe(tmp_path, monkeypatch):
  """A recipe whose included file says where to write."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'base.gin').write_text(
    "include 'methods/dst.gin'\nBUCKET = 'gs://bucket/run'\n"
    'MODEL_DIR = %BUCKET\nINFER_OUTPUT_DIR = %gin.REQUIRED\n'
  )
  (tmp_path / 'recipe.gin').write_text(
    "include 'mine/base.gin'\ninclude 'hosts/t5x.gin'\n"
  )


@pytest.mark.parametrize(
  'arguments',
  [
    ['--gin_file=recipe.gin'],
    ['--gin_file', 'recipe.gin'],
    ['--gin_file', 'base.gin', '--gin_search_paths', 'x,mine'],
  ],
)
def test_output_folder_of_an_included_file(arguments):
  assert worker_flags.output_folder('train', arguments) == 'gs://bucket/run'
  assert worker_flags.output_folder('infer', arguments) is None
  assert worker_flags.output_folder('eval', arguments) is None


@pytest.mark.parametrize(
  'binding',
  [
    ["--gin.MODEL_DIR='gs://other'"],
    ['--gin.MODEL_DIR', "'gs://other'"],
    ["--gin_bindings=MODEL_DIR = 'gs://other'"],
  ],
)
def test_a_binding_wins_and_needs_no_file(binding):
  for name in ('recipe.gin', 'gone.gin'):
    line = [*binding, f'--gin_file={name}']
    assert worker_flags.output_folder('train', line) == 'gs://other'


def test_a_binding_may_use_what_a_file_binds():
  line = ['--gin.EVAL_OUTPUT_DIR=%BUCKET', '--gin_file=recipe.gin']
  assert worker_flags.output_folder('eval', line) == 'gs://bucket/run'


def test_the_last_file_counts_as_in_gin():
  line = ['--gin_file=recipe.gin', '--gin_file=runs/finetune_t5x.gin']
  assert worker_flags.output_folder('train', line) is None
  assert worker_flags.output_folder('train', line[::-1]) == 'gs://bucket/run'


def test_included_files_are_copied_but_not_ours():
  files = worker_flags.files_to_copy(
    ['--gin_file', 'models/byte_tiny.gin', '--gin_file', 'recipe.gin']
  )
  assert [file.name for file in files] == ['recipe.gin', 'mine/base.gin']


def test_a_file_of_a_search_path_is_copied_under_its_name(tmp_path):
  (tmp_path / 'top.gin').write_text("include 'base.gin'\n")
  (file,) = worker_flags.files_to_copy(
    ['--gin_search_paths=mine', '--gin_file=top.gin']
  )[1:]
  assert file.name == 'base.gin'
  assert file.path.resolve() == tmp_path / 'mine' / 'base.gin'


def test_a_name_that_no_copy_can_have_is_refused(tmp_path):
  (tmp_path / 'top.gin').write_text(f"include '{tmp_path}/mine/base.gin'\n")
  for name in (tmp_path / 'recipe.gin', '../here.gin', 'top.gin'):
    (tmp_path.parent / 'here.gin').touch()
    with pytest.raises(RecipeError, match='outside the working directory'):
      worker_flags.files_to_copy([f'--gin_file={name}'])


def test_workers_get_all_flags_but_search_paths():
  ours = ','.join(map(str, gin_path.search_paths()))
  line = [
    *('--gin_search_paths', f'{ours},.,mine'),
    *('--gin_file', 'recipe.gin'),
    *('--gin.X', '"a b"'),
    *('--unknown', '3', '--flag'),
  ]
  assert worker_flags.for_workers(line) == [
    *('--gin_file=recipe.gin', '--gin.X="a b"', '--unknown', '3', '--flag'),
  ]


@pytest.mark.parametrize('folder', ['../mine', '{here}'])
def test_a_folder_elsewhere_is_refused(tmp_path, folder):
  folder = folder.format(here=tmp_path)
  with pytest.raises(RecipeError, match=f'{folder}, which workers do not have'):
    worker_flags.for_workers([f'--gin_search_paths={folder}'])
