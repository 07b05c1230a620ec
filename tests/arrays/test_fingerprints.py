"""Fingerprints depend on every bit of the parameters, and on nothing else."""

import hashlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from dst_t5x.arrays import fingerprints

PARAMS = {
  'encoder': {
    'scale': np.array([1.0, -0.0, np.nan], np.float32),
    'kernel': np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3),
  },
  'half': np.array([[0.5], [6e-8]], np.float16),
  'step': np.int32(7).reshape(()),
  'none': np.zeros((0, 4), np.float32),
}


def _by_hand() -> str:
  """The fingerprint of PARAMS by its specification, without our code."""
  raw = {
    'encoder/kernel': ('bfloat16', [2, 3], '0000803f004040408040a040'),
    'encoder/scale': ('float32', [3], '0000803f000000800000c07f'),
    'half': ('float16', [2, 1], '00380100'),
    'none': ('float32', [0, 4], ''),
    'step': ('int32', [], '07000000'),
  }
  text = 'dst_t5x.fingerprint.1\n'
  for path, (dtype, shape, content) in raw.items():
    digest = hashlib.sha256(bytes.fromhex(content)).hexdigest()
    sizes = ','.join(map(str, shape))
    text += f'["{path}","{dtype}",[{sizes}],"{digest}"]\n'
  return 'sha256:' + hashlib.sha256(text.encode()).hexdigest()


def test_a_fingerprint_is_what_its_specification_says():
  assert fingerprints.fingerprint(PARAMS) == _by_hand()


def test_a_fingerprint_escapes_names():
  text = b'dst_t5x.fingerprint.1\n["\\u00e4\\"",%s' % (
    b'"int8",[1],"%s"]\n' % hashlib.sha256(b'\1').hexdigest().encode()
  )
  assert fingerprints.fingerprint({'ä"': np.array([1], np.int8)}) == (
    'sha256:' + hashlib.sha256(text).hexdigest()
  )


@pytest.mark.parametrize(
  'change',
  [
    lambda a: a.astype('>f4'),
    lambda a: np.asfortranarray(a),
    lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    lambda a: jnp.asarray(a),
    lambda a: jax.device_put(
      a,
      jax.NamedSharding(jax.make_mesh((2, 4), ('x', 'y')), jax.P('y', 'x')),
    ),
    lambda a: jax.device_put(
      a, jax.NamedSharding(jax.make_mesh((8,), ('x',)), jax.P())
    ),
  ],
  ids='big-endian fortran strided reversed jax sharded replicated'.split(),
)
def test_a_fingerprint_depends_on_the_bits_alone(change):
  array = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
  array[0, 0], array[0, 1] = -0.0, np.nan
  changed = change(array)
  assert fingerprints.fingerprint({'a': changed}) == fingerprints.fingerprint(
    {'a': array}
  )


def test_a_fingerprint_of_many_chunks_is_that_of_the_whole(monkeypatch):
  array = np.random.default_rng(0).standard_normal((50, 7))
  whole = [fingerprints.digest(a, 'a') for a in (array, array.T)]
  monkeypatch.setattr(fingerprints, '_CHUNK', 11)
  assert [fingerprints.digest(a, 'a') for a in (array, array.T)] == whole
  assert whole[0].sha256 == hashlib.sha256(array.tobytes()).hexdigest()
  assert whole[1].sha256 == hashlib.sha256(array.T.tobytes()).hexdigest()


@pytest.mark.parametrize(
  'other',
  [
    {'a': np.array([0.0, 1.0], np.float32)},
    {
      'a': np.array(
        [-0.0, np.nextafter(np.float32(1), np.float32(2))], np.float32
      )
    },
    {'a': np.array([[-0.0, 1.0]], np.float32)},
    {'a': np.array([-(2**31), 0x3F800000], np.int32)},
    {'b': np.array([-0.0, 1.0], np.float32)},
    {'a': np.array([1.0, -0.0], np.float32)},
    {'a': np.array([-0.0, 1.0], np.float32), 'b': np.zeros(0)},
    {},
  ],
)
def test_a_fingerprint_changes_with_anything(other):
  one = {'a': np.array([-0.0, 1.0], np.float32)}
  assert fingerprints.fingerprint(other) != fingerprints.fingerprint(one)


def test_hashing_keeps_no_host_copy_of_a_sharded_array():
  mesh = jax.make_mesh((8,), ('x',))
  array = jax.device_put(jnp.ones(8), jax.NamedSharding(mesh, jax.P('x')))
  fingerprints.fingerprint({'a': array})
  # JAX's own cache of the content on the host; nothing public tells.
  assert array._npy_value is None
  np.asarray(array)
  assert array._npy_value is not None


@pytest.mark.parametrize(
  ('leaf', 'message'),
  [
    (1.0, "'a' is a float"),
    ([1.0], "'a' is a list"),
    (np.array(['x']), "'a' has dtype <U1"),
    (np.array([1], np.complex64), "'a' has dtype complex64"),
  ],
)
def test_only_arrays_of_known_dtypes_have_a_fingerprint(leaf, message):
  with pytest.raises(ValueError, match=message):
    fingerprints.fingerprint({'a': leaf})
