"""Seeds: read as they were written, and refused with a reason."""

import json
import struct

import hypothesis
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dst_t5x import seeds
from dst_t5x.arrays import atomic, fingerprints, paths

PARAMS = {
  'encoder': {
    'scale': np.array([1.0, -0.0, np.nan], np.float32),
    'kernel': np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3),
  },
  'half': np.array([[0.5], [6e-8]], np.float16),
  'step': np.int32(7).reshape(()),
  'none': np.zeros((0, 4), np.float32),
}
CONFIG = {'emb_dim': 3, 'mlp_activations': ['gelu', 'linear'], 'rate': 0.1}


def _bits(array) -> bytes:
  return np.asarray(array).tobytes()


def _assert_same(found, expected):
  flat = jax.tree_util.tree_flatten_with_path(expected)[0]
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for (path, want), have in zip(flat, jax.tree.leaves(found), strict=True):
    assert (have.dtype, have.shape) == (want.dtype, want.shape), path
    assert _bits(have) == _bits(want), path


@pytest.mark.parametrize('config', [None, CONFIG])
def test_a_seed_comes_back(tmp_path, config):
  file = tmp_path / 'a.safetensors'
  size = seeds.write(file, PARAMS, config=config)
  seed = seeds.read(file)
  assert size == file.stat().st_size
  _assert_same(seed.params, PARAMS)
  assert seed.config == config
  assert seed.location == str(file)
  assert seed.fingerprint == seeds.fingerprint(PARAMS)


def test_a_seed_is_an_ordinary_safetensors_file(tmp_path):
  file = tmp_path / 'a.safetensors'
  seeds.write(file, PARAMS, config=CONFIG)
  found = safetensors.numpy.load_file(file)
  assert sorted(found) == [
    'encoder/kernel',
    'encoder/scale',
    'half',
    'none',
    'step',
  ]
  assert _bits(found['encoder/scale']) == _bits(PARAMS['encoder']['scale'])
  assert found['encoder/kernel'].dtype == ml_dtypes.bfloat16
  with safetensors.safe_open(file, 'np') as handle:
    assert handle.metadata()['format'] == 'dst_t5x.seed'
    assert handle.metadata()['version'] == '1'
    assert json.loads(handle.metadata()['config']) == CONFIG


def test_the_same_seed_gives_the_same_bytes(tmp_path):
  one, two = tmp_path / 'a.safetensors', tmp_path / 'b.safetensors'
  seeds.write(one, PARAMS, config=CONFIG)
  shuffled = {key: PARAMS[key] for key in reversed(PARAMS)}
  seeds.write(two, jax.tree.map(jnp.asarray, shuffled), config=CONFIG)
  assert one.read_bytes() == two.read_bytes()


@hypothesis.given(
  hnp.arrays(
    st.sampled_from([np.float32, np.float16, np.int8, np.uint16, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
  )
)
def test_any_array_comes_back(tmp_path_factory, array):
  file = tmp_path_factory.mktemp('seed') / 'a.safetensors'
  seeds.write(file, {'a': array}, config=None)
  _assert_same(seeds.read(file).params, {'a': array})


def test_what_was_read_cannot_be_changed(tmp_path):
  file = tmp_path / 'a.safetensors'
  seeds.write(file, PARAMS, config=None)
  with pytest.raises(ValueError, match='read-only'):
    seeds.read(file).params['half'][0] = 0


def test_a_write_that_fails_leaves_the_old_seed(tmp_path, monkeypatch):
  file = tmp_path / 'a.safetensors'
  seeds.write(file, PARAMS, config=None)
  before = file.read_bytes()
  monkeypatch.setattr(
    atomic.os, 'replace', lambda *_: (_ for _ in ()).throw(OSError('disk'))
  )
  with pytest.raises(OSError, match='disk'):
    seeds.write(file, {'other': np.ones(3)}, config=None)
  assert [path.name for path in tmp_path.iterdir()] == ['a.safetensors']
  assert file.read_bytes() == before


# Refusals.


def _reheader(data: bytes, change) -> bytes:
  (length,) = struct.unpack_from('<Q', data)
  header = json.loads(data[8 : 8 + length])
  change(header)
  text = json.dumps(header).encode()
  return struct.pack('<Q', len(text)) + text + data[8 + length :]


DAMAGES = {
  'empty': (lambda b: b'', 'only 0 bytes'),
  'short': (lambda b: b[:7], 'only 7 bytes'),
  'text': (lambda b: b'inputs\ttargets\n' * 9, 'cut short, or of another'),
  'header cut': (lambda b: b[:50], 'cut short'),
  'content cut': (lambda b: b[:-1], 'no complete safetensors file'),
  'extended': (lambda b: b + b'\0', 'no complete safetensors file'),
  'bit': (lambda b: b[:-1] + bytes([b[-1] ^ 1]), 'is damaged.*fingerprint'),
  'no metadata': (
    lambda b: _reheader(b, lambda h: h.pop('__metadata__')),
    'another format',
  ),
  'version': (
    lambda b: _reheader(b, lambda h: h['__metadata__'].update(version='2')),
    "version '2'.*reads version 1",
  ),
  'no fingerprint': (
    lambda b: _reheader(b, lambda h: h['__metadata__'].pop('fingerprint')),
    'is damaged',
  ),
  'config': (
    lambda b: _reheader(b, lambda h: h['__metadata__'].update(config='{')),
    'is damaged',
  ),
  'delta': (
    lambda b: _reheader(
      b, lambda h: h['__metadata__'].update(format='dst_t5x.delta')
    ),
    'is a delta, not a seed',
  ),
}


@pytest.mark.parametrize(('damage', 'message'), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_or_wrong_file_is_refused_by_name(tmp_path, damage, message):
  file = tmp_path / 'a.safetensors'
  seeds.write(file, PARAMS, config=CONFIG)
  file.write_bytes(damage(file.read_bytes()))
  with pytest.raises(seeds.SeedError, match=message) as caught:
    seeds.read(file)
  assert str(file) in str(caught.value)


def test_every_changed_bit_of_the_parameters_is_noticed(tmp_path):
  file = tmp_path / 'a.safetensors'
  seeds.write(file, {'a': np.array([1.5], np.float32)}, config=None)
  data = file.read_bytes()
  for bit in range(32):
    changed = bytearray(data)
    changed[len(data) - 4 + bit // 8] ^= 1 << bit % 8
    file.write_bytes(changed)
    with pytest.raises(seeds.SeedError, match='is damaged'):
      seeds.read(file)


def test_a_missing_seed_is_refused_with_what_works(tmp_path):
  with pytest.raises(seeds.SeedError, match="no such file.*'bundled'"):
    seeds.read(tmp_path / 'a.safetensors')


def test_another_directory_is_refused(tmp_path):
  with pytest.raises(seeds.SeedError, match='is a directory.*what works'):
    seeds.read(tmp_path)


def test_a_file_of_something_else_is_refused(tmp_path):
  file = tmp_path / 'model.safetensors'
  safetensors.numpy.save_file({'w': np.ones(2)}, file)
  with pytest.raises(seeds.SeedError, match='another format.*what works'):
    seeds.read(file)


def test_the_front_opens_every_layout(tmp_path):
  seeds.write(tmp_path / 'a.safetensors', PARAMS, config=CONFIG)
  source = seeds.open_source(tmp_path / 'a.safetensors')
  assert (source.layout, source.config) == ('dst_t5x', CONFIG)
  _assert_same(paths.unflatten(source.read()), PARAMS)
  bundled = seeds.open_source('bundled')
  assert (bundled.location, bundled.layout) == ('bundled', 'dst_t5x')
  digests = bundled.digests()
  assert fingerprints.combine(digests) == seeds.read('bundled').fingerprint


@pytest.mark.parametrize(
  ('name', 'params', 'config', 'message'),
  [
    ('a.bin', {'a': np.ones(1)}, None, r'must end in \.safetensors'),
    ('a.safetensors', {'a': 1.0}, None, "'a' is a float"),
    ('a.safetensors', {'a/b': np.ones(1)}, None, "'a/b'"),
    ('a.safetensors', {'__metadata__': np.ones(1)}, None, 'reserved'),
    ('a.safetensors', {'\ud800': np.ones(1)}, None, 'Unicode'),
    ('a.safetensors', {'a': np.ones(1)}, {'rate': float('nan')}, 'JSON'),
    ('a.safetensors', {'a': np.ones(1)}, {'rate': {1}}, 'JSON'),
  ],
)
def test_what_cannot_be_stored_is_refused(
  tmp_path, name, params, config, message
):
  with pytest.raises(seeds.SeedError, match=message):
    seeds.write(tmp_path / name, params, config=config)
  assert not list(tmp_path.iterdir())


# Fit.

EXPECTED = {
  'encoder/scale': jax.ShapeDtypeStruct((3,), jnp.float32),
  'decoder/scale': jax.ShapeDtypeStruct((3,), jnp.float32),
}


def test_params_that_fit_pass():
  good = {
    'encoder': {'scale': np.ones(3, np.float32)},
    'decoder': {'scale': jnp.ones(3)},
  }
  seeds.check_params(good, EXPECTED, origin='seed')


@pytest.mark.parametrize(
  ('params', 'message'),
  [
    (
      {'encoder': {'scale': np.ones(3, np.float32)}},
      "missing 'decoder/scale' \\(nearest: 'encoder/scale'\\)",
    ),
    (
      {
        'encoder': {'scale': np.ones(3, np.float32)},
        'decoder': {'scale': np.ones(3, np.float32), 'scales': np.ones(3)},
      },
      "not in the network: 'decoder/scales' \\(nearest: 'decoder/scale'\\)",
    ),
    (
      {
        'encoder': {'scale': np.ones((1, 3), np.float32)},
        'decoder': {'scale': np.ones(3, np.float32)},
      },
      "'encoder/scale' has shape \\(1, 3\\) instead of \\(3,\\)",
    ),
    (
      {
        'encoder': {'scale': np.ones(3, ml_dtypes.bfloat16)},
        'decoder': {'scale': np.ones(3, np.float32)},
      },
      "'encoder/scale' has dtype bfloat16 instead of float32",
    ),
    (
      {'encoder': {'scale': 1.0}, 'decoder': {'scale': np.ones(3, np.float32)}},
      "'encoder/scale' has shape None",
    ),
  ],
)
def test_params_that_do_not_fit_are_named(params, message):
  with pytest.raises(seeds.SeedError, match=message) as caught:
    seeds.check_params(params, EXPECTED, origin='my.safetensors')
  assert str(caught.value).startswith('my.safetensors does not fit')
