"""Every gin file parses, and keeps what its header says (`gin_headers`)."""

import functools
import re

import gin
import pytest

from dst_t5x.recipes import gin_files
from dst_t5x.recipes.gin_files import Macro
from dst_t5x.recipes.gin_flags import GinFlags
from dst_t5x.standalone.settings import TrainSettings
from tests import gin_mains
from tests.gin_headers import (
  FILES,
  ROOT,
  T5X_ROOT,
  bindings,
  contents,
  included,
  problems,
  resolved,
)

FOLDERS = {'models', 'methods', 'tasks', 'hosts', 'runs', 'experiments', 'test'}
# text.gin is no task: the tasks include it.
TASKS = [n for n in FILES if n.startswith('tasks/') and n != 'tasks/text.gin']
METHODS = [n for n in FILES if n.startswith('methods/')]
EXPERIMENTS = [n for n in FILES if n.startswith('experiments/')]


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


@pytest.mark.parametrize('name', METHODS)
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


RUNS = ('runs/finetune.gin', 'runs/finetune_t5x.gin')
# Macros whose values differ between the two hosts, and why they must.
DIFFERENT = {
  'OPTIMIZER': 'T5X takes an OptimizerDef, our runner an optax function',
  'TRAIN_STEPS': "T5X's count includes the seed's steps, our runner's does not",
}


@functools.cache
def _bindings(*names: str):
  return bindings(names)


@pytest.mark.parametrize('experiment', [None, *EXPERIMENTS])
@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('method', METHODS)
def test_a_recipe_means_the_same_in_both_hosts(method, task, experiment):
  extra = [experiment] if experiment else []
  ours, t5x = (_bindings(method, task, run, *extra) for run in RUNS)
  both = set(ours) & set(t5x)
  assert both >= {'BATCH_SIZE', 'LEARNING_RATE', 'BEAM_SIZE', 'EVAL_SPLIT'}
  different = {
    name
    for name in both
    if resolved(ours[name], ours) != resolved(t5x[name], t5x)
  }
  assert different == set(DIFFERENT)
  if experiment:
    steps = ours['FINETUNE_STEPS']
    assert resolved(ours['TRAIN_STEPS'], ours) == steps
    assert t5x['steps.after_seed.steps'] == Macro('FINETUNE_STEPS')


def test_both_hosts_read_the_macros_that_they_share():
  """A macro that one host binds and does not read would mean nothing there."""
  texts = {
    run: included(run)[1] | {'INITIAL_CHECKPOINT_PATH', 'MODEL_DIR'}
    for run in RUNS
  }
  bound, _ = included('hosts/finetune_defaults.gin')
  loss, _ = included('hosts/loss.gin')
  for name in bound | loss | {'BEAM_SIZE', 'METHOD', 'TASK_FEATURE_LENGTHS'}:
    for run in RUNS:
      assert name in texts[run], (name, run)


def test_every_setting_of_our_runner_is_a_macro():
  bound = _bindings('hosts/standalone.gin')
  macros = [
    bound.get(f'settings.TrainSettings.{field}')
    for field in TrainSettings._fields
  ]
  assert all(isinstance(macro, Macro) for macro in macros)
  assert len(set(macros)) == len(macros)


def _table() -> dict[str, str]:
  """The macros of gin/README.md, with the default that it shows."""
  rows = {}
  for line in (ROOT / 'README.md').read_text().split('\n'):
    cells = [cell.strip() for cell in re.split(r'(?<!\\)\|', line)[1:-1]]
    if len(cells) == 3 and re.match(r'`[A-Z]', cells[0]):
      for name in re.findall(r'`([A-Z][A-Z0-9_]*)`', cells[0]):
        assert name not in rows, f'{name} is there twice'
        rows[name] = cells[1].strip('`')
  return rows


def _hosts_and_runs() -> list[str]:
  return [n for n in FILES if n.startswith(('hosts/', 'runs/'))]


def test_the_table_of_macros_is_complete():
  mentioned = set()
  for name in _hosts_and_runs():
    bound, used = included(name)
    mentioned |= bound | used
  assert set(_table()) == mentioned


def test_the_table_shows_the_defaults():
  runs = [_bindings(name) for name in _hosts_and_runs()]
  for macro, shown in _table().items():
    defaults = [bound[macro] for bound in runs if macro in bound]
    text = '%gin.REQUIRED' if shown == 'required' else shown
    if not text:
      assert not defaults, f'{macro} has a default: {defaults}'
      continue
    (statement,) = gin_files.read(
      GinFlags(bindings=(f'{macro} = {text}',))
    ).statements
    assert statement.value in defaults, macro
    t5x = _bindings('runs/finetune_t5x.gin')
    assert statement.value == t5x.get(macro, statement.value), macro


def test_the_table_of_tasks_is_true():
  text = (ROOT / 'README.md').read_text()
  rows = re.findall(
    r'^\| `(tasks/\w+\.gin)` \| `(\w+)` \| (\d+), (\d+) \| (\d+) \|$',
    text,
    re.M,
  )
  assert {row[0] for row in rows} == set(TASKS)
  for file, name, inputs, targets, beam in rows:
    bound = _bindings(file)
    assert bound['MIXTURE_OR_TASK_NAME'] == name
    lengths = {'inputs': int(inputs), 'targets': int(targets)}
    assert bound['TASK_FEATURE_LENGTHS'] == lengths
    assert bound['BEAM_SIZE'] == int(beam)


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
