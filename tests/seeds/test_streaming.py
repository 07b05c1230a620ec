"""Applying to a seed on the disk, one parameter at a time."""

import dataclasses
import json
import pathlib
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

from dst_t5x import delta as delta_lib
from dst_t5x import seeds
from dst_t5x.arrays import paths
from dst_t5x.commands.delta_commands import delta as command
from dst_t5x.delta.file import container
from dst_t5x.seeds import conversion, streaming
from dst_t5x.seeds.errors import SeedError

BF16 = ml_dtypes.bfloat16
SEED = {
  'gain': np.full((), 2.0, np.float32),
  'layers_0': {'kernel': np.arange(24, dtype=np.float32).reshape(4, 6)},
  'layers_1': {'kernel': np.arange(24, dtype=np.float16).reshape(4, 6)},
  'table': np.array([1, 2, 3], BF16),
}
CONFIG = {'emb_dim': 6}


def _tuned() -> dict:
  tuned = {path: leaf.copy() for path, leaf in paths.flatten(SEED).items()}
  tuned['gain'] = np.full((), 3.0, np.float32)
  tuned['layers_0/kernel'][1, 2:4] = [-0.0, 7.0]
  tuned['table'].view(np.uint16)[1] = 0x3F81
  return paths.unflatten(tuned)


TUNED = _tuned()
DELTA = delta_lib.diff(SEED, TUNED, step=5)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
  monkeypatch.chdir(tmp_path)
  seeds.write('seed.safetensors', SEED, config=CONFIG)
  seeds.write('tuned.safetensors', TUNED, config=CONFIG)
  container.write(DELTA, 'delta.safetensors')
  return tmp_path


@pytest.mark.usefixtures('folder')
@pytest.mark.parametrize('layout', ['dst_t5x', 't5x', 'orbax'])
def test_gives_the_file_that_writing_all_at_once_gives(layout):
  where = 'seed.safetensors'
  if layout != 'dst_t5x':
    where = conversion.write(layout, SEED, layout, step=3)
  opened = seeds.open_source(where)
  size = streaming.apply(opened, DELTA, 'out.safetensors', config=CONFIG)
  data = pathlib.Path('out.safetensors').read_bytes()
  assert data == pathlib.Path('tuned.safetensors').read_bytes()
  assert size == len(data)
  # And as another reader sees it.
  for path, leaf in paths.flatten(TUNED).items():
    assert load_file('out.safetensors')[path].tobytes() == leaf.tobytes()


@pytest.mark.usefixtures('folder')
def test_nothing_is_written_for_another_seed():
  opened = seeds.open_source
  apply = streaming.apply
  with pytest.raises(delta_lib.WrongSeedError, match='already applied'):
    apply(opened('tuned.safetensors'), DELTA, 'out.safetensors')
  moved = dict(SEED, table=np.array([1, 2, 9], BF16))
  seeds.write('moved.safetensors', moved, config=None)
  with pytest.raises(delta_lib.WrongSeedError, match='differs elsewhere'):
    apply(opened('moved.safetensors'), DELTA, 'out.safetensors')
  forged = dataclasses.replace(
    DELTA.info, result_fingerprint='sha256:' + 64 * '0'
  )
  wrong = delta_lib.SubsetDelta(DELTA.entries, forged)
  with pytest.raises(delta_lib.ResultMismatchError, match='damaged'):
    apply(opened('seed.safetensors'), wrong, 'out.safetensors')
  seeds.write('less.safetensors', {'gain': SEED['gain']}, config=None)
  with pytest.raises(delta_lib.UnknownParameterError, match='layers_0'):
    apply(opened('less.safetensors'), DELTA, 'out.safetensors')
  assert sorted(p.name for p in pathlib.Path().glob('*out*')) == []
  assert not list(pathlib.Path().glob('.dst_t5x-*'))


@pytest.mark.usefixtures('folder')
def test_what_is_there_stays_unless_it_may_be_replaced():
  opened = seeds.open_source('seed.safetensors')
  before = pathlib.Path('tuned.safetensors').read_bytes()
  with pytest.raises(SeedError, match='exists already'):
    streaming.apply(opened, DELTA, 'tuned.safetensors')
  with pytest.raises(SeedError, match='must end in'):
    streaming.apply(opened, DELTA, 'tuned.bin')
  # A seed may be replaced by what is made from it.
  streaming.apply(
    opened, DELTA, 'seed.safetensors', config=CONFIG, overwrite=True
  )
  assert pathlib.Path('seed.safetensors').read_bytes() == before


def test_memory_is_that_of_two_parameters(tmp_path):
  """Sixteen parameters of 4 MB, differences included, within 5 parameters."""
  count, size = 16, 1 << 20
  rng = np.random.default_rng(0)
  seed = {
    f'layers_{i}': rng.standard_normal(size).astype(np.float32)
    for i in range(count)
  }
  tuned = {path: leaf.copy() for path, leaf in seed.items()}
  for leaf in tuned.values():
    leaf[::1000] *= 1.001
  file, out = str(tmp_path / 'd.safetensors'), str(tmp_path / 'o.safetensors')
  seeds.write(tmp_path / 's.safetensors', seed, config=None)
  container.write(delta_lib.diff(seed, tuned), file, seed=seed)
  assert 'differences.float32' in container.sections(file)
  opened = seeds.open_source(tmp_path / 's.safetensors')
  tracemalloc.start()
  try:
    read = container.read(file, seed=opened)
    streaming.apply(opened, read, out)
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert 4 * size < peak < 5 * 4 * size
  assert seeds.read(out).fingerprint == seeds.fingerprint(tuned)


@pytest.mark.usefixtures('folder')
def test_command_applies_to_checkpoints_of_others():
  where = conversion.write('t5x', SEED, 'run', step=3)
  shown = CliRunner().invoke(
    command,
    ['apply', 'delta.safetensors', '--seed', where, '--json']
    + ['--out', 'out.safetensors'],
  )
  assert shown.exception is None, shown.output
  told = json.loads(shown.stdout)
  assert told['fingerprint'] == seeds.read('out.safetensors').fingerprint
  assert told['fingerprint'] == seeds.fingerprint(TUNED)
