"""What the rooms offer by name, loaded when it is first used."""

import importlib
import subprocess
import sys

import pytest

# Room, a name that is cheap, and what it must not load.
ROOMS = [
  ('dst_t5x.standalone', 'TrainSettings', 'tensorflow'),
  ('dst_t5x.network', 'NetworkConfig', 'flax'),
  ('dst_t5x.analysis', 'Changes', 'matplotlib'),
]


@pytest.mark.parametrize('room', [room for room, _, _ in ROOMS])
def test_every_name_is_there(room):
  module = importlib.import_module(room)
  for name in module.__all__:
    assert getattr(module, name).__name__ == name
  assert set(module.__all__) <= set(dir(module))
  with pytest.raises(AttributeError, match='no_such_name'):
    module.no_such_name  # noqa: B018


@pytest.mark.parametrize(('room', 'name', 'heavy'), ROOMS)
def test_a_cheap_name_loads_nothing_heavy(room, name, heavy):
  code = (
    f'import sys\nfrom {room} import {name}\n'
    f'assert {heavy!r} not in sys.modules'
  )
  subprocess.run([sys.executable, '-c', code], check=True)
