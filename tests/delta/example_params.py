"""A seed and two tuned models that the tests of deltas share."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from dst_t5x.arrays import paths

BF16 = ml_dtypes.bfloat16
HASH = 'sha256:' + 64 * '0'


def seed_params() -> dict:
  rng = np.random.default_rng(0)
  kernel = rng.standard_normal((16, 24)).astype(np.float32)
  # Quiet and signalling NaN with payloads, infinity, −0.0, a denormal.
  kernel.view(np.uint32)[0, :5] = [
    0x7FC12345,
    0xFF812345,
    0x7F800000,
    0x80000000,
    0x00000001,
  ]
  return {
    'decoder': {'kernel': rng.standard_normal((8, 4, 6)).astype(BF16)},
    'encoder': {'kernel': kernel, 'scale': np.ones(33, np.float16)},
    'gain': np.float32(2.0).reshape(()),
    'none': np.zeros((0, 4), np.float32),
    'table': rng.integers(-9, 9, (5, 3)).astype(np.int32),
  }


def tuned_params(number: int) -> dict:
  """The seed with a third of everything changed, specials among it."""
  rng = np.random.default_rng(number)
  tuned = copy.deepcopy(seed_params())
  for leaf in jax.tree.leaves(tuned):
    flat = leaf.reshape(-1)
    chosen = rng.permutation(leaf.size)[: -(-leaf.size // 3)]
    flat[chosen] = (9 * rng.standard_normal(chosen.size)).astype(leaf.dtype)
  bits = tuned['encoder']['kernel'].view(np.uint32)
  # Another payload, a quiet one, a finite number, 0.0, −0.0 for a denormal.
  bits[0, :5] = [0x7FC54321, 0xFFC12345, 0x3F800000, 0, 0x80000000]
  bits[1, :2] = [0x00000003, 0x80000000]
  return tuned


SEED, A, B = seed_params(), tuned_params(1), tuned_params(2)


def as_kind(kind: str, tree: dict) -> dict:
  """The tree as arrays of a kind."""
  if kind == 'numpy':
    return copy.deepcopy(tree)
  if kind == 'fortran':
    return jax.tree.map(lambda a: np.array(a, order='F'), tree)
  if kind == 'big-endian':
    return jax.tree.map(
      lambda a: a if a.dtype == BF16 else a.astype(a.dtype.newbyteorder('>')),
      tree,
    )
  if kind == 'jax':
    return jax.tree.map(jnp.asarray, tree)
  mesh = jax.make_mesh((2, 4), ('x', 'y'))
  specs = {
    'decoder/kernel': jax.P('y', None, 'x'),
    'encoder/kernel': jax.P('x', 'y'),
    'table': jax.P(None, None),
  }
  if kind == 'sharded otherwise':
    specs = {'encoder/kernel': jax.P(None, ('y', 'x'))}
  return paths.unflatten(
    {
      path: jax.device_put(
        leaf, jax.NamedSharding(mesh, specs.get(path, jax.P()))
      )
      for path, leaf in paths.flatten(tree).items()
    }
  )


KINDS = [
  'numpy',
  'fortran',
  'big-endian',
  'jax',
  'sharded',
  'sharded otherwise',
]


def assert_same(found, expected):
  found, expected = paths.flatten(found), paths.flatten(expected)
  assert found.keys() == expected.keys()
  for path, want in expected.items():
    have = found[path]
    assert have.shape == want.shape, path
    assert np.dtype(have.dtype).name == want.dtype.name, path
    have = np.asarray(have).astype(want.dtype)
    assert have.tobytes() == want.tobytes(), path


def assert_same_kind(found, given):
  """Same kinds of arrays, lying in the same places."""
  for new, old in zip(
    jax.tree.leaves(found), jax.tree.leaves(given), strict=True
  ):
    assert isinstance(new, jax.Array) == isinstance(old, jax.Array)
    if isinstance(old, jax.Array):
      assert new.sharding == old.sharding


def with_info(**changes):
  """Changes the info of a delta."""
  return lambda d: dataclasses.replace(
    d, info=dataclasses.replace(d.info, **changes)
  )


def without(path):
  """Takes a parameter out of a tree."""
  return lambda tree: paths.unflatten(
    {p: leaf for p, leaf in paths.flatten(tree).items() if p != path}
  )


def with_leaf(path, leaf):
  """Puts an array into a tree."""
  return lambda tree: paths.unflatten({**paths.flatten(tree), path: leaf})


def with_value(path, position, value):
  """Puts a value at a flat position of an array in a tree."""

  def change(tree):
    leaf = paths.flatten(tree)[path].copy()
    leaf.reshape(-1)[position] = value
    return with_leaf(path, leaf)(tree)

  return change
