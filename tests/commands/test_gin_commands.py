"""The commands that gin files and the README show parse, and lack nothing."""

import pathlib
import re
import shlex
from typing import NamedTuple

import click
import gin
import pytest

from dst_t5x.commands import shared_options
from tests import gin_mains
from tests.gin_headers import FILES, ROOT, T5X_ROOT, included

# What our own runner's options bind.
OPTIONS = {'--seed': 'INITIAL_CHECKPOINT_PATH', '--out': 'MODEL_DIR'}


class Command(NamedTuple):
  """A command line: which main, and what it is given.

  Attributes:
    main: module, None for our own runner.
    files: gin files, in order.
    bindings: gin's, in order.
    options: macros that options bind.
  """

  main: str | None
  files: list[str]
  bindings: list[str]
  options: list[str]


def commands(text: str) -> list[str]:
  """The command lines that read gin files, each on one line."""
  lines = text.replace('\\\n', ' ').split('\n')
  return [
    line.strip()
    for line in lines
    if re.match(
      r' *(python -m t5x|dst-t5x) ?.* --gin_file=',
      line,
    )
  ]


def comments(text: str) -> str:
  return '\n'.join(re.findall(r'^#(.*)$', text, re.M))


def read(line: str) -> Command:
  words = shlex.split(line)
  main = words[2] if words[0] == 'python' else None
  if words[:2] == ['dst-t5x', 'launch']:
    # A launcher finds our files by itself, and hands on what follows --.
    launched, words = words[: words.index('--')], words[words.index('--') :]
    (main,) = (
      f't5x.{word}' for word in launched if word in ('train', 'eval', 'infer')
    )
  elif main:
    assert '--gin_search_paths=$(dst-t5x' in words, 'gin finds no file of ours'
  files = [w.partition('=')[2] for w in words if w.startswith('--gin_file=')]
  bindings = [w.removeprefix('--gin.') for w in words if w.startswith('--gin.')]
  options = [] if main else [OPTIONS[w] for w in words if w in OPTIONS]
  return Command(main, files, bindings, options)


def problems(line: str) -> list[str]:
  """What would keep a command from running."""
  command = read(line)
  # Examples of a user's own files, which bind what the reader knows.
  own = [name for name in command.files if name.startswith('MY_')]
  missing = [
    name
    for name in command.files
    if name not in own and not (ROOT / name).is_file()
  ]
  if missing or own:
    return [f'there is no {name}' for name in missing]
  mains = {
    gin_mains.main_of((ROOT / name).read_text()) for name in command.files
  } - {None}
  if mains - {command.main}:
    return [f'its files are for {", ".join(sorted(filter(None, mains)))}']
  bound, used = set(command.options), set()
  for name in command.files:
    more_bound, more_used = included(name)
    bound |= more_bound
    used |= more_used
  given = {binding.partition('=')[0] for binding in command.bindings}
  found = [f'nothing binds {name}' for name in sorted(used - bound - given)]
  with gin_mains.parsed(command.files, command.bindings, command.main):
    for macro in sorted((bound | given) - set(command.options)):
      if '.' in macro:
        continue
      value = gin.query_parameter(f'{macro}/gin.macro.value')
      if getattr(value, 'selector', None) == 'gin.constant':
        found.append(f'{macro} is required')
  return found


DOCUMENTS = (
  pathlib.Path(__file__).resolve().parents[2] / 'README.md',
  ROOT / 'README.md',
  ROOT.parent / 'launch' / 'README.md',
)
COMMANDS = [
  (name, line)
  for name in FILES
  for line in commands(comments((ROOT / name).read_text()))
]


def test_runs_and_experiments_show_their_command():
  shown = {name for name, _ in COMMANDS}
  needed = [n for n in FILES if n.startswith(('runs/', 'experiments/'))]
  assert needed
  assert set(needed) <= shown


@pytest.mark.parametrize(('name', 'line'), COMMANDS)
def test_command_parses(name, line):
  if line.startswith('python') and T5X_ROOT is None:
    pytest.skip('T5X is not installed')
  assert f'--gin_file={name}' in shlex.split(line)
  assert problems(line) == []


def test_readme_commands_parse():
  lines = [
    line
    for document in DOCUMENTS
    for line in commands(document.read_text())
    if '--gin_file=my_run.gin' not in line  # an example of a user's own file
  ]
  mains = {read(line).main for line in lines}
  assert mains == {None, 't5x.train', 't5x.eval', 't5x.infer'}
  for line in lines:
    if T5X_ROOT is not None or not read(line).main:
      assert problems(line) == [], line


GOOD = r"""# Trains.
#
#   dst-t5x train --gin_file=methods/dst.gin --gin_file=tasks/number_words.gin \
#     --gin_file=runs/finetune.gin --seed bundled --out RUN \
#     --gin.TRAIN_STEPS=300
"""


def test_checker_accepts_what_is_right():
  (line,) = commands(comments(GOOD))
  assert problems(line) == []


@pytest.mark.parametrize(
  ('old', 'new', 'problem'),
  [
    ('methods/dst', 'methods/dust', 'there is no methods/dust.gin'),
    ('runs/f', 'MY_RUN.gin --gin_file=runs/g', 'there is no runs/ginetune.gin'),
    ('--gin_file=methods/dst.gin ', '', 'nothing binds METHOD'),
    ('--out RUN ', '', 'MODEL_DIR is required'),
    ('--seed bundled ', '', 'INITIAL_CHECKPOINT_PATH is required'),
    ('runs/finetune', 'runs/eval_t5x', 'its files are for t5x.eval'),
  ],
)
def test_checker_notices(old, new, problem):
  assert old in GOOD
  (line,) = commands(comments(GOOD.replace(old, new)))
  assert problems(line) == [problem]


@pytest.mark.parametrize(
  'words', [['--gin.EPSILON=0.01'], ['--gin.EPSILON', '0.01']]
)
def test_our_runner_takes_bindings_as_t5x_does(words):
  assert shared_options.gin_bindings(words) == ['EPSILON=0.01']
  with pytest.raises(click.NoSuchOption):
    shared_options.gin_bindings([*words, '--no-such-option'])
  with pytest.raises(click.UsageError, match="unexpected argument 'word'"):
    shared_options.gin_bindings([*words, 'word'])
