"""Every gin file parses, and its header is a contract that the file keeps.

The header is the file's first comment block. After a sentence on what the file
is for, it lists macros, or says `nothing`, under three words:

  Provides: what the file binds.
  Overrides: what it binds although a file that it includes binds it too.
  Requires: what it or its included files use and none of them binds.
"""

import io
import re
from typing import NamedTuple

import gin
import pytest
from gin import config_parser

from dst_t5x import gin_path

ROOT = gin_path.root()
T5X_ROOT = gin_path.t5x_root()
FILES = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob('*.gin'))
FOLDERS = {'models', 'methods', 'tasks', 'hosts', 'runs', 'experiments', 'test'}
SECTIONS = ('Provides', 'Requires', 'Overrides')


class Contents(NamedTuple):
  """What one file does, its includes not counted."""

  bound: frozenset[str]
  used: frozenset[str]
  other_bindings: frozenset[str]
  includes: tuple[str, ...]


class _Delegate(config_parser.ParserDelegate):
  def __init__(self):
    self.used = set()

  def configurable_reference(self, scoped_configurable_name, evaluate):
    pass

  def macro(self, macro_name):
    if '.' not in macro_name:  # gin.REQUIRED and the like are constants.
      self.used.add(macro_name)


def contents(text: str) -> Contents:
  delegate = _Delegate()
  bound, others, includes = set(), set(), []
  for statement in config_parser.ConfigParser(io.StringIO(text), delegate):
    if isinstance(statement, config_parser.IncludeStatement):
      includes.append(statement.filename)
    elif isinstance(statement, config_parser.BindingStatement):
      if statement.arg_name:
        others.add(f'{statement.selector}.{statement.arg_name}')
      else:
        bound.add(statement.selector)
  return Contents(
    frozenset(bound),
    frozenset(delegate.used),
    frozenset(others),
    tuple(includes),
  )


def header(text: str) -> list[str]:
  """The lines of the first comment block, without their '#'."""
  lines = []
  for line in text.split('\n'):
    if not line.startswith('#'):
      break
    lines.append(line[1:].strip())
  return lines


def sections(text: str) -> dict[str, frozenset[str]]:
  found, current = {}, None
  for line in header(text):
    match = re.match(r'(\w+):(.*)', line)
    if match and match[1] in SECTIONS:
      current, line = match[1], match[2]
      assert current not in found, f'{current} is there twice'
      found[current] = ''
    if current is not None:
      found[current] += f' {line}'
  lists = {}
  for name, items in found.items():
    names = [item.strip() for item in items.split(',')]
    assert all(names), f'{name} is empty; write "nothing"'
    lists[name] = frozenset() if names == ['nothing'] else frozenset(names)
  return lists


def included(name: str) -> tuple[frozenset[str], frozenset[str]]:
  """Macros that a file and all its includes bind, and that they use."""
  root = T5X_ROOT if name.startswith('t5x/') else ROOT
  assert root is not None
  own = contents((root / name).read_text())
  bound, used = set(own.bound), set(own.used)
  for inner in own.includes:
    inner_bound, inner_used = included(inner)
    bound |= inner_bound
    used |= inner_used
  return frozenset(bound), frozenset(used)


def problems(text: str) -> list[str]:
  """What a file's header says that the file does not do, or omits."""
  own, said = contents(text), sections(text)
  below_bound, below_used = frozenset(), frozenset()
  for name in own.includes:
    bound, used = included(name)
    below_bound |= bound
    below_used |= used
  done = {
    'Provides': own.bound - below_bound,
    'Requires': (own.used | below_used) - own.bound - below_bound,
    'Overrides': own.bound & below_bound,
  }
  found = []
  if not header(text) or header(text)[0].split(':')[0] in ('', *SECTIONS):
    found.append('the header does not begin with what the file is for')
  for name in SECTIONS:
    if name not in said:
      found.append(f'the header has no {name}')
      continue
    for macro in sorted(said[name] - done[name]):
      found.append(f'{name} lists {macro}, which is not so')
    for macro in sorted(done[name] - said[name]):
      found.append(f'{name} lacks {macro}')
  return found


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
def test_parses(name, monkeypatch):
  text = _read(name)
  if T5X_ROOT is None and re.search(r'^(from|import) t5x', text, re.M):
    pytest.skip('imports T5X, which is not installed')
  monkeypatch.chdir(ROOT)
  if T5X_ROOT is not None:
    gin.add_config_file_search_path(str(T5X_ROOT))
  gin.clear_config()
  try:
    gin.parse_config_file(name)
  finally:
    gin.clear_config()


@pytest.mark.parametrize(
  'name', [name for name in FILES if name.startswith('methods/')]
)
def test_method_files_bind_the_method_alone(name):
  found = contents((ROOT / name).read_text())
  assert found.bound == {'METHOD'}
  assert not found.other_bindings
  assert not found.includes


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
