"""The map in dst_t5x/README.md shows what is there."""

import importlib
import pathlib
import re
import subprocess
import sys

import pytest

import dst_t5x
from dst_t5x import seeds
from dst_t5x.checkpoint import imports
from dst_t5x.delta import difference
from dst_t5x.delta.file import container

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
TEXT = (REPOSITORY / 'dst_t5x' / 'README.md').read_text()
ROOMS = re.findall(r'^\| `(\w+)` \|', TEXT, re.M)
ROUTE = re.findall(r'^\d+\. `(dst_t5x[\w.]+)`: `(\w+)`', TEXT, re.M)


def test_the_table_has_every_room_in_the_order_of_the_contracts():
  folders = {
    path.name
    for path in (REPOSITORY / 'dst_t5x').iterdir()
    if (path / '__init__.py').is_file()
  }
  assert set(ROOMS) == folders | {'launch', 'tasks'}
  layers = re.findall(
    r'^  "([\w |]+)",$',
    (REPOSITORY / 'pyproject.toml')
    .read_text()
    .split('layers = [')[1]
    .split(']')[0],
    re.M,
  )
  rank = {
    room: number
    for number, layer in enumerate(layers)
    for room in layer.split(' | ')
  }
  assert [rank[room] for room in ROOMS] == sorted(rank.values())


def test_what_the_table_says_to_read_first_is_there():
  for room, first in re.findall(r'^\| `(\w+)` \|.*\| `(\w+)` \|$', TEXT, re.M):
    folder = REPOSITORY / 'dst_t5x' / room
    assert (folder / f'{first}.py').is_file(), (room, first)


NAMED = sorted(
  {
    name.removeprefix('dst_t5x.').removeprefix('dst.')
    for name in re.findall(r'`((?:\w+\.)+\w+)', TEXT)
    if not name.endswith(('.py', '.md'))
  }
  - {'gin'}  # files, no package
)


@pytest.mark.parametrize('name', NAMED)
def test_named_things_exist(name):
  """What has dots in it is a module of a room, or a name in one."""
  if name.startswith('hooks.'):
    pytest.importorskip('t5x', reason='T5X is not installed')
  value = dst_t5x
  for part in name.split('.'):
    if not hasattr(value, part):
      importlib.import_module(f'{value.__name__}.{part}')
    value = getattr(value, part)


def test_a_delta_goes_that_way_to_a_whole_model(tmp_path):
  """The functions of the list are called, in its order."""
  seed = seeds.read('bundled')
  tuned = {**seed.params}
  scale = seed.params['decoder']['decoder_norm']['scale'].copy()
  scale[0] += 1
  tuned['decoder'] = {
    **seed.params['decoder'],
    'decoder_norm': {'scale': scale},
  }
  container.write(
    difference.diff(seed.params, tuned, method='dst', budget=1, step=3),
    tmp_path / 'delta.safetensors',
  )
  imported = imports.import_delta(
    tmp_path / 'delta.safetensors', tmp_path / 'run', seed='bundled'
  )
  code = (
    'import importlib, sys, threading\n'
    'from dst_t5x.commands import cli\n'
    f'route = {ROUTE!r}\n'
    'codes = {}\n'
    'for module, name in route:\n'
    '  function = getattr(importlib.import_module(module), name)\n'
    '  function = getattr(function, "callback", function)\n'
    '  codes[function.__code__] = (module, name)\n'
    'calls = []\n'
    'def profile(frame, event, _):\n'
    "  call = codes.get(frame.f_code) if event == 'call' else None\n"
    '  if call is not None and call not in calls:\n'
    '    calls.append(call)\n'
    'sys.setprofile(profile)\n'
    f"cli.main(['delta', 'merge', {imported.out!r},"
    f' {str(tmp_path / "merged")!r}], standalone_mode=False)\n'
    'sys.setprofile(None)\n'
    'assert calls == route, calls\n'
  )
  run = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=False
  )
  assert run.returncode == 0, run.stderr
