"""A checkpoint that an earlier release wrote in T5X is read for ever."""

import json
import pathlib
import tarfile

import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file

from dst_t5x import checkpoint, seeds
from dst_t5x.arrays import paths

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
# Written by the release that wrote the checkpoint: `delta export --to plain`.
PLAIN = GOLDEN / 't5x_delta_v1_plain.safetensors'


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> pathlib.Path:
  """A run of 4 steps of DST after the 10 of its seed, unpacked."""
  folder = tmp_path_factory.mktemp('golden')
  for name in ('t5x_delta_checkpoint_v1', 't5x_seed_v1'):
    with tarfile.open(GOLDEN / f'{name}.tar.xz') as archive:
      archive.extractall(folder, filter='data')
  return folder


def test_delta_is_what_the_writer_exported(folder):
  opened = checkpoint.must_open(str(folder / 'checkpoint_14'))
  found = {p: x for p, x in checkpoint.read_delta(opened).items() if x[0].size}
  wanted = load_file(PLAIN)
  names = {key.rpartition('.')[0] for key in wanted}
  assert found.keys() == names
  for name, (positions, values) in found.items():
    np.testing.assert_array_equal(positions, wanted[f'{name}.positions'])
    assert values.dtype == wanted[f'{name}.values'].dtype
    assert values.tobytes() == wanted[f'{name}.values'].tobytes(), name


def test_what_it_says_of_itself(folder):
  opened = checkpoint.must_open(str(folder / 'checkpoint_14'))
  assert opened.manifest['format'] == 'dst_t5x.delta_checkpoint'
  assert opened.manifest['version'] == 1
  assert opened.manifest['method']['name'] == 'dst'
  steps = checkpoint.read(opened, ['state/step', 'state/count'])
  assert {path: int(x) for path, x in steps.items()} == {
    'state/step': 14,
    'state/count': 4,
  }
  # What a resume reads, by the paths under which it was written.
  assert {path for path in opened.shapes if path.startswith('state/')} >= {
    'state/carry',
    'state/key',
    'state/nonfinite',
    'state/metrics/threshold',
    'state/positions/decoder.layers_0.mlp',
    'state/first_positions/decoder.layers_0.mlp',
    'state/inner/token_embedder/embedding/v',
  }


def test_exports_to_the_same_file(folder, tmp_path):
  out = tmp_path / 'plain.safetensors'
  exported = checkpoint.export_delta(
    str(folder / 'checkpoint_14'),
    str(out),
    layout='plain',
    seed=str(folder / 'checkpoint_10'),
  )
  assert out.read_bytes() == PLAIN.read_bytes()
  assert exported.checkpoint_bytes is not None
  assert exported.checkpoint_bytes.delta == 1040
  with safetensors.safe_open(str(PLAIN), 'np') as file:
    about = file.metadata()
  assert exported.result_fingerprint == about['result_fingerprint']
  seed = paths.flatten(seeds.read(str(folder / 'checkpoint_10')).params)
  for name, shape in json.loads(about['shapes']).items():
    assert seed[name].shape == tuple(shape)
