"""Every gin file parses, and keeps what its header says (`gin_headers`)."""

import re

import gin
import pytest

from tests import gin_mains
from tests.gin_headers import FILES, ROOT, T5X_ROOT, contents, problems

FOLDERS = {'models', 'methods', 'tasks', 'hosts', 'runs', 'experiments', 'test'}
# text.gin is no task: the tasks include it.
TASKS = [n for n in FILES if n.startswith('tasks/') and n != 'tasks/text.gin']


def _read(name: str) -> str:
  text = (ROOT / name).read_text()
  if T5X_ROOT is None and re.search(r"^include '?\"?t5x/", text, re.M):
    pytest.skip("includes T5X's files, and T5X is not installed")
  return text


def test_there_are_files_in_known_folders_only():
  assert FILES
  assert {name.split('/')[0] for name in FILES} <= FOLDERS


def test_gin_folder_is_no_python_package():
  # A package called gin at the repository root would shadow gin-config.
  assert not list(ROOT.rglob('*.py'))


@pytest.mark.parametrize('name', FILES)
def test_header(name):
  assert problems(_read(name)) == []


@pytest.mark.parametrize('name', FILES)
def test_parses(name):
  text = _read(name)
  if T5X_ROOT is None and gin_mains.needs_t5x(text):
    pytest.skip('imports T5X, which is not installed')
  with gin_mains.parsed([name], main=gin_mains.main_of(text)):
    for macro in contents(text).bound:
      gin.query_parameter(f'{macro}/gin.macro.value')  # raises if not bound


@pytest.mark.parametrize(
  'name', [name for name in FILES if name.startswith('methods/')]
)
def test_method_files_bind_the_method_alone(name):
  found = contents((ROOT / name).read_text())
  assert found.bound == {'METHOD'}
  assert not found.other_bindings
  assert not found.includes


@pytest.mark.parametrize(
  ('task', 'beam'),
  [(n, 4 if n == 'tasks/wmt22.gin' else 1) for n in TASKS],
)
def test_a_task_sets_the_beam_of_both_hosts(task, beam):
  """DST, appendix G: 4 for translation, greedy for the others."""
  with gin_mains.parsed([task]):
    assert gin.query_parameter('BEAM_SIZE/gin.macro.value') == beam
  if T5X_ROOT is None:
    return
  for main in ('finetune', 'pretrain', 'eval', 'infer'):
    run = f'runs/{main}_t5x.gin'
    module = gin_mains.main_of((ROOT / run).read_text())
    # The host's file comes last, and must not undo what the task said.
    with gin_mains.parsed(['models/byte_tiny.gin', task, run], main=module):
      assert gin.query_parameter('BEAM_SIZE/gin.macro.value') == beam
      assert '.num_decodes = %BEAM_SIZE' in gin.config_str()


GOOD = """# Sets two things.
#
# Provides: A, B
# Requires: C,
#   D
# Overrides: nothing

A = 1
B = %C
f.x = %D
"""


def test_checker_accepts_what_is_right():
  assert problems(GOOD) == []


@pytest.mark.parametrize(
  ('old', 'new', 'problem'),
  [
    ('A, B', 'A', 'Provides lacks B'),
    ('A, B', 'A, B, E', 'Provides lists E, which is not so'),
    ('C,\n#   D', 'C', 'Requires lacks D'),
    ('f.x = %D\n', '', 'Requires lists D, which is not so'),
    ('nothing', 'A', 'Overrides lists A, which is not so'),
    ('# Overrides: nothing\n', '', 'the header has no Overrides'),
    (
      '# Sets two things.\n#\n',
      '',
      'the header does not begin with what the file is for',
    ),
  ],
)
def test_checker_notices(old, new, problem):
  assert old in GOOD
  assert problems(GOOD.replace(old, new)) == [problem]


def test_checker_looks_into_included_files():
  method = next(name for name in FILES if name.startswith('methods/'))
  text = f"""# Includes a method.
#
# Provides: METHOD
# Requires: nothing
# Overrides: nothing
include '{method}'
METHOD = 1
"""
  assert problems(text) == [
    'Provides lists METHOD, which is not so',
    'Overrides lacks METHOD',
  ]
