"""What all layouts have in common."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from dst_t5x import seeds
from dst_t5x.arrays import atomic, fingerprints, paths
from dst_t5x.seeds import conversion, tensor_reading
from dst_t5x.seeds.errors import SeedError

LAYOUTS = ['t5x', 'orbax', 'hf', 'dst_t5x']
each = pytest.mark.parametrize('layout', LAYOUTS)


def target(tmp_path, layout, name='seed'):
  return tmp_path / (f'{name}.safetensors' if layout == 'dst_t5x' else name)


@pytest.fixture
def written(tmp_path, params, config, layout):
  return conversion.write(
    layout,
    params,
    target(tmp_path, layout),
    step=7,
    config=config.to_dict() if layout in ('hf', 'dst_t5x') else None,
  )


def assert_same(found, expected):
  found, expected = paths.flatten(found), paths.flatten(expected)
  assert list(found) == list(expected)
  for name, want in expected.items():
    have = np.asarray(found[name])
    assert (have.dtype, have.shape) == (want.dtype, want.shape), name
    assert have.tobytes() == np.asarray(want).tobytes(), name


def without_nan(array):
  """Which bits a NaN has after a cast is the caster's business."""
  array = np.asarray(array)
  return np.where(np.isnan(array), np.zeros((), array.dtype), array)


@each
def test_what_is_written_is_read(written, layout, params, config):
  source = seeds.open_source(written)
  assert source.layout == layout
  assert source.location == written
  assert source.step == (None if layout == 'hf' else 7)
  known = layout in ('hf', 'dst_t5x')
  assert source.config == (config.to_dict() if known else None)
  flat = paths.flatten(params)
  specs = source.specs()
  assert list(specs) == list(flat)
  assert all(specs[k].shape == v.shape for k, v in flat.items())
  assert all(specs[k].dtype == v.dtype for k, v in flat.items())
  assert_same(paths.unflatten(source.read()), params)
  seed = seeds.read(written)
  assert_same(seed.params, params)
  assert (seed.location, seed.config) == (written, source.config)
  assert seed.fingerprint == seeds.fingerprint(params)


@each
def test_digests_are_those_of_the_whole(written, layout, params):
  source = seeds.open_source(written)
  names = list(source.specs())
  # As two processes would share them.
  halves = source.digests(names[::2]) | source.digests(names[1::2])
  assert fingerprints.combine(halves) == seeds.fingerprint(params)
  assert source.digests() == halves


@each
@pytest.mark.parametrize('dtype', [None, jnp.bfloat16])
def test_parameters_come_sharded(written, layout, params, dtype):
  mesh = jax.make_mesh((2, 4), ('x', 'y'))
  source = seeds.open_source(written)
  shardings = {
    name: jax.NamedSharding(
      mesh, jax.P('x') if spec.shape[0] % 2 == 0 else jax.P()
    )
    for name, spec in source.specs().items()
  }
  found = source.read(shardings, dtype=dtype)
  for name, array in found.items():
    assert isinstance(array, jax.Array)
    assert array.sharding == shardings[name]
  if dtype is None:
    assert_same(paths.unflatten(found), params)
    return
  cast = jax.tree.map(lambda a: without_nan(a.astype(dtype)), params)
  assert_same(jax.tree.map(without_nan, paths.unflatten(found)), cast)


@each
def test_some_parameters_can_be_read(written, layout, params):
  source = seeds.open_source(written)
  names = ['token_embedder/embedding', 'decoder/decoder_norm/scale']
  found = source.read(names=names, dtype=ml_dtypes.bfloat16)
  assert list(found) == sorted(names)
  flat = paths.flatten(params)
  for name, array in found.items():
    want = without_nan(flat[name].astype(ml_dtypes.bfloat16))
    assert array.dtype == want.dtype
    assert without_nan(array).tobytes() == want.tobytes()
  assert source.read(names=[]) == {}


@each
def test_what_is_not_there_is_named(written, layout):
  source = seeds.open_source(written)
  for read in (source.read, source.digests):
    with pytest.raises(SeedError, match="'token_embedder/embeding'; nearest"):
      read(names=['token_embedder/embeding'])
  mesh = jax.make_mesh((8,), ('x',))
  replicated = jax.NamedSharding(mesh, jax.P())
  with pytest.raises(SeedError, match="no sharding for 'encoder/encoder_norm"):
    source.read(
      {'token_embedder/embedding': replicated},
      names=['encoder/encoder_norm/scale', 'token_embedder/embedding'],
    )


@each
def test_nothing_is_overwritten(written, layout, params, tmp_path):
  before = seeds.open_source(written).digests()
  where = tmp_path / 'seed' if layout in ('t5x', 'orbax') else written
  other = jax.tree.map(lambda a: a + 1, params)
  with pytest.raises(SeedError, match='exists already'):
    conversion.write(layout, other, where, step=7)
  assert seeds.open_source(written).digests() == before


@each
def test_a_write_that_fails_leaves_nothing(
  layout, tmp_path, params, monkeypatch
):
  def fail(*_):
    raise OSError('disk')

  monkeypatch.setattr(atomic.os, 'rename', fail)
  monkeypatch.setattr(atomic.os, 'replace', fail)
  with pytest.raises(OSError, match='disk'):
    conversion.write(layout, params, target(tmp_path, layout), step=7)
  assert [p for p in tmp_path.rglob('*') if p.name != 'seed'] == []


@each
@pytest.mark.parametrize(
  ('bad', 'message'),
  [
    ({'a': 1.0}, "'a' is a float"),
    ({'a/b': np.ones(1)}, "'a/b'"),
    ({'a': np.array(['x'])}, "'a' has dtype <U1"),
  ],
)
def test_what_cannot_be_stored_is_refused(layout, tmp_path, bad, message):
  with pytest.raises(SeedError, match=message):
    conversion.write(layout, bad, target(tmp_path, layout))
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('layout', ['t5x', 'orbax', 'dst_t5x'])
def test_any_tree_of_arrays_comes_back(layout, tmp_path):
  params = {
    'a': {'b': np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3)},
    'half': np.array([[0.5], [6e-8]], np.float16),
    'scalar': np.float32(3.5).reshape(()),
    'count': np.array([1, -2], np.int32),
    'flag': np.array([True, False]),
    'turned': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    'zeros': np.zeros((3, 2), np.float32),
  }
  where = conversion.write(layout, params, target(tmp_path, layout))
  assert_same(seeds.read(where).params, params)
  source = seeds.open_source(where)
  assert fingerprints.combine(source.digests()) == seeds.fingerprint(params)


@each
def test_arrays_of_jax_are_written_as_well(layout, tmp_path, params):
  mesh = jax.make_mesh((4, 2), ('x', 'y'))
  sharded = jax.tree.map(
    lambda a: jax.device_put(
      a, jax.NamedSharding(mesh, jax.P('y') if a.shape[0] % 2 == 0 else jax.P())
    ),
    params,
  )
  where = conversion.write(layout, sharded, target(tmp_path, layout))
  assert_same(seeds.read(where).params, params)


@pytest.mark.parametrize('layout', ['t5x', 'orbax'])
def test_a_checkpoint_has_the_name_that_t5x_looks_for(layout, tmp_path, params):
  first = conversion.write(layout, params, tmp_path / 'run', step=3)
  assert first == str(tmp_path / 'run' / 'checkpoint_3')
  second = conversion.write(layout, params, tmp_path / 'run' / 'checkpoint_12')
  assert second == str(tmp_path / 'run' / 'checkpoint_12')
  assert seeds.open_source(second).step == 12
  with pytest.raises(SeedError, match='step 12, and the step is 3'):
    conversion.write(layout, params, tmp_path / 'checkpoint_12', step=3)
  with pytest.raises(SeedError, match='2 checkpoints.*checkpoint_3, checkpo'):
    seeds.open_source(tmp_path / 'run')


@pytest.mark.parametrize('layout', ['t5x', 'orbax'])
def test_a_folder_with_one_checkpoint_is_that(layout, tmp_path, params):
  where = conversion.write(layout, params, tmp_path / 'run', step=3)
  assert seeds.open_source(tmp_path / 'run').location == where


@each
def test_relative_paths_work(layout, tmp_path, params, monkeypatch):
  monkeypatch.chdir(tmp_path)
  name = 'seed.safetensors' if layout == 'dst_t5x' else 'seed'
  where = conversion.write(layout, params, name, step=1)
  assert not where.startswith('/')
  assert_same(seeds.read(where).params, params)


@each
def test_remote_targets_are_refused(layout, params):
  with pytest.raises(SeedError, match='to this machine only'):
    conversion.write(layout, params, 'gs://bucket/a.safetensors')


def test_an_unknown_layout_is_refused(params, tmp_path):
  with pytest.raises(SeedError, match="'safetensor'; there are t5x, orbax"):
    conversion.write('safetensor', params, tmp_path / 'a')


def test_a_part_is_read_once_and_no_more_than_needed():
  held = np.arange(32.0).reshape(8, 4)
  asked = []

  def read_part(name, at):
    asked.append((name, at))
    return held[at]

  mesh = jax.make_mesh((2, 4), ('x', 'y'))
  specs = {'a': jax.ShapeDtypeStruct(held.shape, held.dtype)}
  sharding = jax.NamedSharding(mesh, jax.P('x'))
  found = tensor_reading.read(
    specs, read_part, location='here', shardings={'a': sharding}, dtype='int32'
  )
  # Four devices share each half.
  halves = [('a', (slice(i, i + 4), slice(0, 4))) for i in (0, 4)]
  assert sorted(asked, key=str) == sorted(halves, key=str)
  np.testing.assert_array_equal(found['a'], held.astype(np.int32))
