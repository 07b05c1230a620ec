"""Legacy T5X checkpoints: every way to say the same, and every damage."""

import pathlib
import shutil

import hypothesis
import numpy as np
import pytest
from flax import serialization
from hypothesis import strategies as st

from dst_t5x import seeds
from dst_t5x.seeds import t5x_index, t5x_legacy
from dst_t5x.seeds.errors import SeedError

KERNEL = np.arange(6, dtype=np.float32).reshape(2, 3)
PARAMS = {'encoder': {'kernel': KERNEL, 'scale': np.float32([1, 2, 3])}}
FOLDER = 'target.encoder.kernel'


@pytest.fixture
def checkpoint(tmp_path) -> pathlib.Path:
  """A checkpoint of two tensors."""
  return pathlib.Path(t5x_legacy.write(PARAMS, tmp_path / 'checkpoint_7'))


def index_of(checkpoint):
  data = (checkpoint / 'checkpoint').read_bytes()
  return serialization.msgpack_restore(data)


def put_index(checkpoint, index):
  data = serialization.msgpack_serialize(index)
  (checkpoint / 'checkpoint').write_bytes(data)


def spec_of(index):
  return index['optimizer']['target']['encoder']['kernel']


def assert_kernel(checkpoint, expected=KERNEL):
  found = seeds.read(checkpoint).params['encoder']['kernel']
  assert found.dtype == expected.dtype
  np.testing.assert_array_equal(found, expected)


def test_a_file_holds_the_index_and_every_tensor_a_folder(checkpoint):
  names = {path.name for path in checkpoint.iterdir()}
  assert names == {'checkpoint', FOLDER, 'target.encoder.scale'}
  index = index_of(checkpoint)
  assert index['version'] == 3
  assert index['optimizer']['state'] == {'step': 7}
  assert spec_of(index) == {
    'driver': 'zarr',
    'dtype': 'float32',
    'kvstore': {'driver': 'file', 'path': f'{FOLDER}/'},
    'metadata': {
      'chunks': [2, 3],
      'compressor': {'id': 'gzip', 'level': 1},
      'shape': [2, 3],
    },
  }


def test_the_index_itself_names_the_checkpoint_too(checkpoint):
  assert_kernel(checkpoint / 'checkpoint')


@pytest.mark.parametrize(
  'store',
  [
    {'driver': 'gfile', 'path': FOLDER},
    {'driver': 'gcs', 'bucket': 't5x-dummy-bucket', 'path': f'{FOLDER}/'},
  ],
  ids=['gfile', 'gcs'],
)
def test_a_checkpoint_can_be_copied_from_anywhere(checkpoint, store):
  index = index_of(checkpoint)
  spec_of(index)['kvstore'] = store
  put_index(checkpoint, index)
  assert_kernel(checkpoint)


def test_the_path_may_lie_beside_the_store(checkpoint):
  index = index_of(checkpoint)
  spec = spec_of(index)
  spec['kvstore'] = {'driver': 'gfile'}
  spec['path'] = FOLDER
  del spec['dtype']
  spec['metadata']['dtype'] = '<f4'
  put_index(checkpoint, index)
  assert_kernel(checkpoint)


def test_a_tensor_may_lie_in_the_index(checkpoint):
  index = index_of(checkpoint)
  index['optimizer']['target']['encoder']['kernel'] = KERNEL + 1
  put_index(checkpoint, index)
  shutil.rmtree(checkpoint / FOLDER)
  assert_kernel(checkpoint, KERNEL + 1)


def test_a_parameter_that_is_nothing_is_left_out(checkpoint):
  index = index_of(checkpoint)
  index['optimizer']['target']['encoder']['bias'] = None
  put_index(checkpoint, index)
  assert list(seeds.open_source(checkpoint).specs()) == [
    'encoder/kernel',
    'encoder/scale',
  ]


@pytest.mark.parametrize('state', [{}, None, {'step': None}])
def test_a_checkpoint_need_not_tell_its_step(checkpoint, state):
  index = index_of(checkpoint)
  index['optimizer']['state'] = state
  put_index(checkpoint, index)
  assert seeds.open_source(checkpoint).step is None
  assert_kernel(checkpoint)


def test_large_tensors_lie_in_pieces(tmp_path, monkeypatch):
  monkeypatch.setattr(t5x_index, '_CHUNK', 40)
  array = np.arange(77, dtype=np.float32).reshape(7, 11)
  where = t5x_legacy.write({'a': array}, tmp_path / 'checkpoint_0')
  pieces = list((pathlib.Path(where) / 'target.a').glob('[0-9]*'))
  assert len(pieces) >= 8
  np.testing.assert_array_equal(seeds.read(where).params['a'], array)


def _edit(change):
  def damage(checkpoint):
    index = index_of(checkpoint)
    change(index)
    put_index(checkpoint, index)

  return damage


def _bytes(change):
  def damage(checkpoint):
    file = checkpoint / 'checkpoint'
    file.write_bytes(change(file.read_bytes()))

  return damage


def _folder(path):
  return _edit(lambda i: spec_of(i)['kvstore'].update(path=path))


DAMAGES = {
  'index empty': (_bytes(lambda b: b''), 'its index.*no complete msgpack'),
  'index cut': (_bytes(lambda b: b[:-9]), 'its index.*no complete msgpack'),
  'index text': (_bytes(lambda b: b'inputs'), 'its index'),
  'index a list': (_bytes(lambda b: b'\x93\x01\x02\x03'), 'holds a list'),
  'tensorflow': (
    _bytes(lambda b: b'model_checkpoint_path: "model.ckpt"'),
    'TensorFlow checkpoint.*convert it with T5X',
  ),
  'version': (_edit(lambda i: i.update(version=1)), 'version 1; .*from 2 on'),
  'no version': (_edit(lambda i: i.pop('version')), 'version None'),
  'no target': (_edit(lambda i: i['optimizer'].pop('target')), 'no parameters'),
  'no optimizer': (_edit(lambda i: i.pop('optimizer')), 'no parameters'),
  'name': (
    _edit(lambda i: i['optimizer']['target'].update({'a/b': KERNEL})),
    "name 'a/b'",
  ),
  'text leaf': (
    _edit(lambda i: i['optimizer']['target'].update(a='x')),
    "'a' is a str",
  ),
  'no shape': (
    _edit(lambda i: spec_of(i)['metadata'].pop('shape')),
    "does not say where 'encoder/kernel' lies",
  ),
  'no metadata': (
    _edit(lambda i: spec_of(i).pop('metadata')),
    "does not say where 'encoder/kernel' lies",
  ),
  'parent folder': (_folder('../other'), r"'\.\./other'.*no folder of"),
  'absolute folder': (_folder('/etc/'), "'/etc'.*no folder of"),
  'dots': (_folder('..'), r"'\.\.'.*no folder of"),
  'uint16': (
    _edit(lambda i: spec_of(i).update(dtype='uint16')),
    'before June 2021',
  ),
  'step': (
    _edit(lambda i: i['optimizer']['state'].update(step=np.zeros(2))),
    'its step is',
  ),
  'other shape': (
    _edit(lambda i: spec_of(i)['metadata'].update(shape=[3, 2])),
    r'shape \(2, 3\).*in target\.encoder\.kernel, and \(3, 2\)',
  ),
  'other dtype': (
    _edit(lambda i: spec_of(i).update(dtype='bfloat16')),
    'dtype float32.*bfloat16 in the index',
  ),
  'no folder': (
    lambda c: shutil.rmtree(c / FOLDER),
    "lacks 'encoder/kernel', or it is damaged",
  ),
  'no .zarray': (
    lambda c: (c / FOLDER / '.zarray').unlink(),
    "lacks 'encoder/kernel', or it is damaged",
  ),
  'no piece': (
    lambda c: (c / FOLDER / '0.0').unlink(),
    "cannot read 'encoder/kernel'.*missing",
  ),
  'piece cut': (
    lambda c: (c / FOLDER / '0.0').write_bytes(
      (c / FOLDER / '0.0').read_bytes()[:-12]
    ),
    "cannot read 'encoder/kernel'",
  ),
}


@pytest.mark.parametrize(('damage', 'message'), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_refused_by_name(checkpoint, damage, message):
  damage(checkpoint)
  with pytest.raises(SeedError, match=message) as caught:
    seeds.read(checkpoint)
  assert str(checkpoint) in str(caught.value)


def test_two_names_in_one_folder_are_refused(tmp_path):
  with pytest.raises(SeedError, match="'a.b' and 'a/b' need one folder"):
    t5x_legacy.write(
      {'a.b': KERNEL, 'a': {'b': KERNEL}}, tmp_path / 'checkpoint_0'
    )
  assert list(tmp_path.iterdir()) == []


@hypothesis.given(st.data())
def test_a_changed_index_is_read_or_refused(tmp_path_factory, data):
  tmp_path = tmp_path_factory.mktemp('index')
  where = t5x_legacy.write(PARAMS, tmp_path / 'checkpoint_7')
  content = bytearray((pathlib.Path(where) / 'checkpoint').read_bytes())
  for _ in range(data.draw(st.integers(1, 3))):
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
  try:
    index = t5x_index.parse(bytes(content), 'here')
  except SeedError as error:
    assert 'here' in str(error)
  else:
    for tensor in index.tensors.values():
      folder = getattr(tensor, 'folder', 'in the index')
      assert '/' not in folder and folder != '..'
