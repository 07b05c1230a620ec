"""The list of layouts, and errors that are told apart by class."""

import os
import subprocess
import sys

import click
import numpy as np
import pytest
import safetensors.numpy

from dst_t5x import seeds
from dst_t5x.commands import export_command, seed_commands
from dst_t5x.seeds import layouts

each = pytest.mark.parametrize('layout', layouts.LAYOUTS, ids=layouts.NAMES)


def test_every_layout_has_its_own_name():
  assert len(set(layouts.NAMES)) == len(layouts.LAYOUTS)
  assert [layouts.by_name(name) for name in layouts.NAMES] == [*layouts.LAYOUTS]


@each
def test_every_layout_can_be_read_and_written(layout):
  reader, writer = layout.load_reader(), layout.load_writer()
  assert callable(reader.is_here) and callable(reader.open_source)
  assert callable(writer.write)
  assert not reader.is_here('no/such/seed')


@pytest.mark.parametrize(
  'command', [seed_commands.convert, export_command.merge]
)
def test_commands_offer_every_layout(command):
  (option,) = [p for p in command.params if p.name == 'layout']
  assert isinstance(option.type, click.Choice)
  assert tuple(option.type.choices) == layouts.NAMES
  assert all(layout.title in option.help for layout in layouts.LAYOUTS)


def test_the_list_imports_nothing_heavy():
  code = (
    'import sys\n'
    'from dst_t5x.seeds import layouts\n'
    "heavy = {'jax', 'numpy', 'safetensors', 'flax', 'orbax', 'tensorstore'}\n"
    'print(layouts.NAMES, sorted(heavy & set(sys.modules)))\n'
  )
  run = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert run.stdout == "('t5x', 'orbax', 'hf', 'dst_t5x') []\n"


def test_every_public_name_is_there():
  assert seeds.__all__ == sorted(seeds.__all__)
  assert all(getattr(seeds, name) is not None for name in seeds.__all__)
  with pytest.raises(AttributeError, match="no attribute 'reed'"):
    _ = seeds.reed


@pytest.mark.parametrize('name', ['model', 'what works', 'is damaged'])
def test_the_name_of_a_file_does_not_change_its_error(tmp_path, name):
  file = tmp_path / f'{name}.safetensors'
  safetensors.numpy.save_file({'w': np.ones(2)}, file)
  with pytest.raises(seeds.NotThisLayoutError) as caught:
    seeds.read(file)
  assert str(caught.value) == (
    f'{file} is a safetensors file of another format (None); what works: '
    f'{layouts.WHAT_WORKS}'
  )


def test_what_is_no_seed_has_its_own_class(tmp_path):
  with pytest.raises(seeds.SeedNotFoundError, match='no such file.*what works'):
    seeds.open_source(tmp_path / 'a')
  with pytest.raises(seeds.SeedNotFoundError, match='is a directory'):
    seeds.open_source(tmp_path)
  (tmp_path / 'a').write_text('inputs\ttargets\n')
  with pytest.raises(seeds.NotThisLayoutError, match='no complete safetensors'):
    seeds.open_source(tmp_path / 'a')


def test_damage_is_neither(tmp_path):
  file = tmp_path / 'a.safetensors'
  seeds.write(file, {'a': np.ones(1)}, config=None)
  data = bytearray(file.read_bytes())
  data[-1] ^= 1
  file.write_bytes(data)
  with pytest.raises(seeds.SeedError, match='is damaged') as caught:
    seeds.read(file)
  assert type(caught.value) is seeds.SeedError
  assert os.fspath(file) in str(caught.value)
