"""The file: exact bytes, every refusal, and what damage does to it."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import random
import signal
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc

import hypothesis
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import strategies as st

from dst_t5x import delta as delta_lib
from dst_t5x.arrays import atomic
from dst_t5x.delta.file import container, numbers
from tests import delta_reference

ROOT = pathlib.Path(__file__).resolve().parents[3]
GOLDEN = ROOT / 'tests' / 'golden'
BF16 = ml_dtypes.bfloat16


def _info(**changes) -> delta_lib.DeltaInfo:
  hashes = [f'sha256:{n:064x}' for n in range(3)]
  base = delta_lib.DeltaInfo('dst', 0.1, None, 'tensor', 12, *hashes)
  return dataclasses.replace(base, **changes)


def _entry(dtype, shape, positions, words) -> delta_lib.DeltaEntry:
  """An entry with values given as bit patterns."""
  width = np.dtype(dtype).itemsize
  values = np.array(words, f'u{width}').view(dtype)
  return delta_lib.DeltaEntry(shape, np.dtype(dtype), positions, values)


def _uniform(n: int, k: int, dtype=np.float32) -> delta_lib.SubsetDelta:
  rng = np.random.default_rng(0)
  positions = np.sort(rng.permutation(n)[:k])
  values = rng.standard_normal(k).astype(dtype)
  entry = delta_lib.DeltaEntry((n,), np.dtype(dtype), positions, values)
  return delta_lib.SubsetDelta({'a': entry}, _info())


# What the golden files hold. They were written by the version in their names
# and stay as they are; a later version adds its own.
MIXED = delta_lib.SubsetDelta(
  {
    'decoder/kernel': _entry(
      np.float32,
      (5, 7),
      [0, 1, 20, 34],
      [0x3FC00000, 0x80000000, 0x7FC00123, 0x00000001],
    ),
    'decoder/none': _entry(np.float32, (0, 3), [], []),
    'encoder/kernel': _entry(BF16, (2, 2, 2), [3, 7], [0x3F80, 0xFF81]),
    'encoder/wide': _entry(np.float32, (2**16, 2**17), [2**33 - 1], [1]),
    'größe': _entry(np.float16, (), [0], [0x7E01]),
    'table': _entry(np.int32, (4,), [2], [2**32 - 5]),
    'unchanged': _entry(np.float64, (3,), [], []),
  },
  _info(epsilon=None, budget=9, method='diff'),
)
STEPS = np.arange(6000) * 37 % 97 + 1
MANY = delta_lib.SubsetDelta(
  {
    'a': _entry(
      np.int8, (300_000,), np.cumsum(STEPS) - 1, np.arange(6000) % 251
    )
  },
  _info(epsilon=0.02),
)
SEED = {
  'a': (np.arange(600, dtype=np.float32) - 300) / 8,
  'b': np.arange(600, dtype=np.int32).astype(np.float16).astype(BF16),
}
MOVED = {'a': SEED['a'].copy(), 'b': SEED['b'].copy()}
MOVED['a'].view(np.uint32)[::7] += np.arange(86, dtype=np.uint32) * 3 - 99
MOVED['a'][301:303] = [-0.0, 1e-40]
MOVED['b'].view(np.uint16)[5::9] ^= 1
CODED = delta_lib.diff(SEED, MOVED, method='diff', step=3)
LAYERS = delta_lib.SubsetDelta(
  {
    **{
      f'encoder/layers_{i}/{name}': _entry(
        np.float32, shape, range(i % 3), [0x3F800000 + i] * (i % 3)
      )
      for i in range(12)
      for name, shape in (('mlp/wi_0', (4, 3)), ('mlp/wi_1', (4, 3)))
    },
    'encoder/layers_0/norm': _entry(BF16, (4,), [3], [0x8000]),
    'encoder/layers_1/norm': _entry(BF16, (4,), [], []),
    'encoder/norm': _entry(BF16, (4,), [0], [0x7F81]),
  },
  _info(),
)
GOLDENS = {
  'layers_v1.1.safetensors': (LAYERS, None),
  'mixed_v1.0.safetensors': (MIXED, None),
  'many_v1.0.safetensors': (MANY, None),
  'differences_v1.0.safetensors': (CODED, SEED),
}


def _words(params) -> dict[str, list[int]]:
  return {
    path: array.reshape(-1).view(f'u{array.itemsize}').tolist()
    for path, array in params.items()
  }


@pytest.mark.parametrize('name', GOLDENS)
def test_golden_files_are_read_for_ever(name):
  delta, seed = GOLDENS[name]
  assert container.read(GOLDEN / name, seed=seed) == delta


@pytest.mark.parametrize('name', GOLDENS)
def test_golden_files_hold_what_the_specification_says(name):
  delta, seed = GOLDENS[name]
  metadata, entries = delta_reference.read(
    (GOLDEN / name).read_bytes(), seed and _words(seed)
  )
  assert metadata.pop('format') == 'dst_t5x.delta'
  assert f'_v{metadata.pop("version")}.' in name
  assert metadata == {
    key: str(value)
    for key, value in dataclasses.asdict(delta.info).items()
    if value is not None
  }
  assert list(entries) == list(delta.entries)
  for path, entry in delta.entries.items():
    assert entries[path] == (
      entry.dtype.name,
      list(entry.shape),
      entry.positions.tolist(),
      entry.values.view(f'u{entry.dtype.itemsize}').tolist(),
    )


@pytest.mark.parametrize('name', GOLDENS)
def test_golden_files_are_written_to_the_byte(tmp_path, name):
  delta, seed = GOLDENS[name]
  file = tmp_path / 'delta.safetensors'
  size = container.write(delta, file, seed=seed)
  assert file.read_bytes() == (GOLDEN / name).read_bytes()
  assert size == file.stat().st_size


def test_golden_files_cover_both_codes():
  codes = {
    safetensors.numpy.load_file(GOLDEN / name)['positions'][0]
    for name in GOLDENS
  }
  assert 64 in codes and codes & set(range(41))


# Round trips.

_SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
_DTYPES = st.sampled_from(
  [np.float32, np.float64, np.float16, BF16, np.int32, np.int8]
)


@st.composite
def _entries(draw):
  dtype, shape = draw(_DTYPES), draw(_SHAPES)
  positions = sorted(
    draw(st.sets(st.integers(0, math.prod(shape) - 1)))
    if math.prod(shape)
    else ()
  )
  width = np.dtype(dtype).itemsize
  words = draw(
    st.lists(
      st.integers(0, 256**width - 1),
      min_size=len(positions),
      max_size=len(positions),
    )
  )
  return _entry(dtype, shape, positions, words)


_PATHS = st.sampled_from(['a', 'b/c', 'b/d', 'ß', '0', 'z/"\\\n'])
_DELTAS = st.builds(
  lambda entries, epsilon, step: delta_lib.SubsetDelta(
    entries, _info(epsilon=epsilon, step=step)
  ),
  st.dictionaries(_PATHS, _entries()),
  st.none() | st.floats(0.0, 1.0, exclude_min=True),
  st.integers(0, 2**40),
)


@hypothesis.given(_DELTAS)
def test_any_delta_comes_back(tmp_path_factory, delta):
  file = tmp_path_factory.mktemp('delta') / 'a.safetensors'
  container.write(delta, file)
  assert container.read(file) == delta
  _, entries = delta_reference.read(file.read_bytes())
  for path, entry in delta.entries.items():
    assert entries[path].positions == entry.positions.tolist()


@pytest.mark.parametrize('dtype', [np.float32, np.float16, BF16, np.int8])
@pytest.mark.parametrize('k', [1, 60, 9000, 150_000])
def test_values_come_back_from_differences(tmp_path, dtype, k):
  rng = np.random.default_rng(0)
  width = np.dtype(dtype).itemsize
  old = rng.integers(0, 256**width, 160_000).astype(f'u{width}')
  new = old.copy()
  chosen = rng.permutation(old.size)[:k]
  new[chosen] += rng.integers(1, 30, k).astype(new.dtype)
  new[chosen[: k // 9]] = rng.integers(0, 256**width, k // 9)
  if dtype is not np.int8:  # what diff would refuse
    with np.errstate(invalid='ignore'):
      bad = ~np.isfinite(new.view(dtype)) & np.isfinite(old.view(dtype))
    new[bad] = old[bad]
  seed, tuned = {'a': old.view(dtype)}, {'a': new.view(dtype)}
  delta = delta_lib.diff(seed, tuned)
  file = tmp_path / 'a.safetensors'
  container.write(delta, file, seed=seed)
  assert container.read(file, seed=seed) == delta


def test_differences_are_a_sixth_smaller_than_the_bound_plus_raw_values(
  tmp_path,
):
  # Values that fine-tuning moved by about a percent.
  rng = np.random.default_rng(0)
  seed = {'a': 0.05 * rng.standard_normal(1_000_000).astype(np.float32)}
  step = 1e-3 * rng.standard_normal(1_000_000).astype(np.float32)
  chosen = np.argsort(-np.abs(seed['a'] * step))[:10_000]
  tuned = {'a': seed['a'].copy()}
  tuned['a'][chosen] += step[chosen]
  delta = delta_lib.diff(seed, tuned)
  file = tmp_path / 'a.safetensors'
  gamma = math.lgamma
  bound = (gamma(1e6 + 1) - gamma(1e4 + 1) - gamma(1e6 - 1e4 + 1)) / math.log(2)
  assert container.write(delta, file) < 1.03 * (bound / 8 + 40_000)
  assert container.write(delta, file, seed=seed) < 0.85 * (bound / 8 + 40_000)
  assert container.read(file, seed=seed) == delta


def test_the_same_delta_gives_the_same_bytes(tmp_path):
  one, two = tmp_path / 'a.safetensors', tmp_path / 'b.safetensors'
  container.write(MIXED, one)
  other = delta_lib.SubsetDelta(
    {path: MIXED.entries[path] for path in reversed([*MIXED.entries])},
    MIXED.info,
  )
  container.write(other, two)
  assert one.read_bytes() == two.read_bytes()


def test_values_can_be_read_by_any_safetensors_reader(tmp_path):
  file = tmp_path / 'a.safetensors'
  container.write(MIXED, file)
  found = safetensors.numpy.load_file(file)
  assert found['values.float16'].view(np.uint16).tolist() == [0x7E01]
  assert found['values.int32'].tolist() == [-5]
  assert json.loads(found['parameters'].tobytes())[-2] == [
    'table',
    'int32',
    [4],
    1,
  ]


def test_arrays_that_were_read_cannot_be_changed():
  delta = container.read(GOLDEN / 'many_v1.0.safetensors')
  for array in (delta.entries['a'].positions, delta.entries['a'].values):
    with pytest.raises(ValueError, match='read-only'):
      array[0] = 1


# Size and memory.


def test_overhead_is_within_4_kb_and_100_bytes_a_tensor(tmp_path):
  # Names and shapes of T5 1.1 large.
  kernels = {
    'attention/query': (1024, 1024),
    'encoder_decoder_attention/query': (1024, 1024),
    'encoder_decoder_attention/value': (1024, 1024),
    'mlp/wi_0': (1024, 2816),
    'mlp/wo': (2816, 1024),
  }
  entries = {
    f'decoder/layers_{i}/{name}/kernel': _entry(
      np.float32, shape, [7, 2000], [1, 2]
    )
    for i in range(24)
    for name, shape in kernels.items()
  }
  file = tmp_path / 'a.safetensors'
  container.write(delta_lib.SubsetDelta(entries, _info()), file)
  sizes = container.sections(file)
  content = sizes.pop('positions') + sizes.pop('values.float32')
  assert sum(sizes.values()) + content == file.stat().st_size
  assert sum(sizes.values()) <= 4096 + 100 * len(entries)
  assert container.sections(GOLDEN / 'mixed_v1.0.safetensors').keys() == {
    *'header values.float32 values.float16 values.bfloat16'.split(),
    *'values.int32 parameters positions sha256'.split(),
  }


@pytest.mark.parametrize(
  ('n', 'k'), [(10**7, 400_000), (3 * 10**6, 300_000), (10**7, 100_000)]
)
def test_reading_takes_no_more_than_four_times_the_file(tmp_path, n, k):
  file = tmp_path / 'a.safetensors'
  size = container.write(_uniform(n, k), file)
  container.read(file)
  tracemalloc.start()
  try:
    container.read(file)
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  # Work space does not grow with the file.
  assert peak <= 4 * size + 2**20


# Refusals.


def _file(metadata, tensors) -> bytes:
  """A safetensors file that ends in the right hash, made without our code."""
  header, content = {'__metadata__': metadata}, b''
  for name, (dtype, shape, data) in tensors.items():
    end = len(content) + len(data)
    header[name] = {
      'dtype': dtype,
      'shape': shape,
      'data_offsets': [len(content), end],
    }
    content += data
  text = json.dumps(header).encode()
  data = struct.pack('<Q', len(text)) + text + content
  return _sealed(data)


def _sealed(data: bytes) -> bytes:
  return data[:-32] + hashlib.sha256(data[:-32]).digest()


def _u8(data: bytes):
  return ('U8', [len(data)], data)


TABLE = [['a', 'float32', [4], 2], ['b', 'float32', [3], 1]]
METADATA = {
  'format': 'dst_t5x.delta',
  'version': '1.0',
  'method': 'dst',
  'epsilon': '0.5',
  'silo_rule': 'none',
  'step': '3',
  'seed_fingerprint': 'sha256:' + 64 * '1',
  'replaced_hash': 'sha256:' + 64 * '2',
  'result_fingerprint': 'sha256:' + 64 * '3',
}


def _tensors(table=TABLE, steps=(1, 2, 3), values=(1.0, 2.0, 3.0)):
  return {
    'values.float32': (
      'F32',
      [len(values)],
      np.array(values, np.float32).tobytes(),
    ),
    'parameters': _u8(json.dumps(table).encode()),
    'positions': _u8(numbers.encode(np.array(steps, np.int64))),
    'sha256': _u8(bytes(32)),
  }


def _metadata(**changes):
  merged = {**METADATA, **changes}
  return _file({k: v for k, v in merged.items() if v is not None}, _tensors())


def _changed(**changes):
  tensors = {**_tensors(), **changes}
  tensors['sha256'] = tensors.pop('sha256')
  return _file(METADATA, {k: v for k, v in tensors.items() if v is not None})


def _with_table(table):
  text = table if isinstance(table, str) else json.dumps(table)
  return _changed(parameters=_u8(text.encode()))


def _rows(**changes):
  row = {'path': 'a', 'dtype': 'float32', 'shape': [4], 'count': 2, **changes}
  return _with_table([list(row.values()), TABLE[1]])


def test_a_file_made_by_hand_is_read(tmp_path):
  (tmp_path / 'a').write_bytes(_file(METADATA, _tensors()))
  delta = container.read(tmp_path / 'a')
  assert delta.entries['a'].positions.tolist() == [0, 2]
  assert delta.entries['b'].positions.tolist() == [1]
  assert delta.entries['b'].values.tolist() == [3.0]


@pytest.mark.parametrize(
  'changes', [{'version': '1.9'}, {'title': 'mine'}, {'epsilon': None}]
)
def test_what_a_later_minor_version_may_add_is_read(tmp_path, changes):
  (tmp_path / 'a').write_bytes(_metadata(**changes))
  assert container.read(tmp_path / 'a').size == 3


REFUSALS = {
  # Metadata.
  'format': (_metadata(format='dst_t5x.seed'), "format 'dst_t5x.seed'"),
  'no format': (_metadata(format=None), 'format None'),
  'next version': (_metadata(version='2.0'), "version '2.0'.*reads 1.x"),
  'version 0': (_metadata(version='0.9'), "version '0.9'"),
  'version 1': (_metadata(version='1'), "version '1'"),
  'version -': (_metadata(version='1.0-rc'), "version '1.0-rc'"),
  'format long': (_metadata(format='x' * 5000), 'format'),
  'version long': (_metadata(version='1' * 5000), 'version'),
  'hash long': (_metadata(replaced_hash='1' * 5000), 'replaced_hash'),
  'no version': (_metadata(version=None), "version ''"),
  'no method': (_metadata(method=None), "lacks 'method'"),
  'no silos': (_metadata(silo_rule=None), "lacks 'silo_rule'"),
  'no hash': (_metadata(replaced_hash=None), "lacks 'replaced_hash'"),
  'hash': (_metadata(replaced_hash='sha256:0'), 'replaced_hash'),
  'epsilon nan': (_metadata(epsilon='nan'), "epsilon='nan'"),
  'epsilon 0': (_metadata(epsilon='0.0'), 'epsilon=0.0'),
  'epsilon 2': (_metadata(epsilon='2.0'), 'epsilon=2.0'),
  'epsilon -': (_metadata(epsilon='e-e'), 'float'),
  'budget': (_metadata(budget='-1'), "budget='-1'"),
  'step': (_metadata(step='1.0'), "step='1.0'"),
  'step digits': (_metadata(step='9' * 5000), 'step='),
  # Table.
  'table text': (_with_table('[["a"'), 'table of parameters'),
  'table bytes': (_changed(parameters=_u8(b'\xff')), 'table of parameters'),
  'table depth': (_with_table('[' * 100_000), 'table of parameters'),
  'table number': (_with_table('1'), 'is no list'),
  'table digits': (_with_table('[' + '9' * 5000 + ']'), 'table of parameters'),
  'row': (_with_table([['a', 'float32', [4]]]), 'is needed'),
  'row path': (_rows(path=1), 'is needed'),
  'row shape': (_rows(shape=4), 'is needed'),
  'row sizes': (_rows(shape=[4.0]), 'is needed'),
  'row bool': (_rows(shape=[4, True]), 'is needed'),
  'row negative': (_rows(shape=[-4]), 'is needed'),
  'row count': (_rows(count=2.0), 'is needed'),
  'row count bool': (_rows(count=True), 'is needed'),
  'row count negative': (_rows(count=-1), '-1 positions'),
  'row count large': (_rows(count=5), r'5 positions in shape \[4\]'),
  'dtype': (_rows(dtype='float8'), "unknown dtype 'float8'"),
  'shape too large': (_rows(shape=[2**62, 2**62]), 'impossible shape'),
  'shape hidden': (_rows(shape=[2**62, 2**62, 0], count=0), 'impossible'),
  'shape long': (_rows(shape=[1] * 99, count=0), 'impossible shape'),
  'total': (_rows(shape=[2**40]), 'too many'),
  'unsorted': (_with_table(TABLE[::-1]), "'a' follows 'b'"),
  'twice': (_with_table([TABLE[0], TABLE[0]]), "'a' follows 'a'"),
  'empty path': (_rows(path=''), 'no path of a parameter'),
  'empty key': (_rows(path='a//b'), 'no path of a parameter'),
  'module': (_with_table([TABLE[0], ['a/b', 'float32', [3], 1]]), "'a/b'"),
  # Values.
  'no values': (_changed(**{'values.float32': None}), 'are needed'),
  'values short': (_file(METADATA, _tensors(values=(1.0,))), r'\[1\].*\[3\]'),
  'values dtype': (
    _changed(**{'values.float32': ('I32', [3], bytes(12))}),
    'I32',
  ),
  'values axes': (
    _changed(**{'values.float32': ('F32', [3, 1], bytes(12))}),
    r'\[3, 1\]',
  ),
  'unknown tensor': (_changed(extra=_u8(b'x')), "'extra'"),
  'values nobody has': (_changed(**{'values.int8': _u8(b'')}), 'int8'),
  'both': (_changed(**{'differences.float32': _u8(b'\0\7')}), 'differences'),
  # Positions.
  'no positions': (_changed(positions=None), 'positions'),
  'positions dtype': (_changed(positions=('I8', [2], b'\0\7')), 'I8'),
  'beyond the end': (_file(METADATA, _tensors(steps=(1, 2, 5))), 'beyond'),
  'far beyond': (_file(METADATA, _tensors(steps=(1, 2, 2**40))), 'range'),
  'other counts': (
    _file(METADATA, _tensors(steps=(1, 1, 1))),
    "'a' has 3 positions, and its count is 2",
  ),
  'too few': (_file(METADATA, _tensors(steps=(1, 2))), 'Rice'),
  'too many': (_file(METADATA, _tensors(steps=(1, 2, 3, 1))), 'Rice'),
  'no code': (_changed(positions=_u8(b'')), 'expected'),
  'code': (_changed(positions=_u8(b'\x63')), 'unknown code 99'),
  # Hash.
  'no hash tensor': (_changed(sha256=None), 'does not end in'),
  'hash not last': (
    _file(METADATA, {'sha256': _u8(bytes(32)), **_tensors()}),
    'does not end in',
  ),
  'hash short': (_changed(sha256=_u8(bytes(31))), r'\[31\]'),
  'hash wrong': (_file(METADATA, _tensors())[:-1] + b'\0', 'is damaged'),
  # Counts without bytes to match.
  'bomb': (
    _with_table([['a', 'float32', [2**39], 2**39]]),
    r'\[3\].*\[549755813888\]',
  ),
  'bomb of differences': (
    _changed(
      **{
        'values.float32': None,
        'differences.float32': _u8(b'\0\1'),
        'parameters': _u8(b'[["a","float32",[1099511627776],1099511627776]]'),
      }
    ),
    'too many for 2 bytes',
  ),
  'differences': (
    _changed(**{'values.float32': None, 'differences.float32': _u8(b'\0\7')}),
    'give the seed.*sha256:1111',
  ),
}


@pytest.mark.parametrize(('data', 'message'), REFUSALS.values(), ids=REFUSALS)
def test_what_is_wrong_is_refused_by_name(tmp_path, data, message):
  file = tmp_path / 'a.safetensors'
  file.write_bytes(data)
  with pytest.raises(delta_lib.DeltaError, match=message) as caught:
    container.read(file)
  assert str(caught.value).startswith(f'{file}: ')
  assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    (b'', 'only 0 bytes'),
    (b'position,value\n' * 9, 'of another format'),
    (struct.pack('<Q', 2**63) + b'{}', 'cut short'),
    (struct.pack('<Q', 2) + b'{}', 'format None'),
    (struct.pack('<Q', 2) + b'[]', 'no complete safetensors file'),
  ],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path, data, message):
  (tmp_path / 'a').write_bytes(data)
  with pytest.raises(delta_lib.DeltaFileError, match=message):
    container.read(tmp_path / 'a')


def test_a_path_without_a_file_is_refused(tmp_path):
  with pytest.raises(delta_lib.DeltaFileError, match='is a directory'):
    container.read(tmp_path)
  with pytest.raises(delta_lib.DeltaFileError, match='no such file'):
    container.read(tmp_path / 'a')


def test_differences_need_the_right_seed(tmp_path):
  file = tmp_path / 'a.safetensors'
  container.write(CODED, file, seed=SEED)
  assert 'differences.float32' in container.sections(file)
  with pytest.raises(delta_lib.DeltaFileError, match='give the seed'):
    container.read(file)
  with pytest.raises(delta_lib.WrongSeedError, match='not the one'):
    container.read(file, seed=MOVED)
  with pytest.raises(delta_lib.UnknownParameterError, match="no 'b'"):
    container.read(file, seed={'a': SEED['a']})
  with pytest.raises(delta_lib.DtypeMismatchError, match="'b'"):
    container.read(file, seed={**SEED, 'b': SEED['a']})
  with pytest.raises(delta_lib.WrongSeedError):
    container.write(CODED, tmp_path / 'b.safetensors', seed=MOVED)
  assert [path.name for path in tmp_path.iterdir()] == ['a.safetensors']


def test_a_file_that_is_replaced_while_it_is_read_is_refused(
  tmp_path, monkeypatch
):
  file = tmp_path / 'a.safetensors'
  container.write(MANY, file)
  check = container._check_digest

  def replaced(*args):
    check(*args)
    container.write(MIXED, file)

  monkeypatch.setattr(container, '_check_digest', replaced)
  with pytest.raises(delta_lib.DeltaFileError):
    container.read(file)


@pytest.mark.parametrize(
  ('name', 'delta', 'message'),
  [
    ('a.bin', MIXED, r'must end in \.safetensors'),
    (
      'a.safetensors',
      delta_lib.SubsetDelta(
        {f'a{i}': _entry(np.float32, (2**39,), [0], [1]) for i in range(3)},
        _info(),
      ),
      'too many',
    ),
    (
      'a.safetensors',
      delta_lib.SubsetDelta({'\ud800': MIXED.entries['table']}, _info()),
      'Unicode',
    ),
    (
      'a.safetensors',
      delta_lib.SubsetDelta({}, _info(method='\ud800')),
      'Unicode',
    ),
  ],
)
def test_what_cannot_be_stored_is_refused(tmp_path, name, delta, message):
  with pytest.raises(delta_lib.DeltaFileError, match=message):
    container.write(delta, tmp_path / name)
  assert not list(tmp_path.iterdir())


# Damage.


def _mutated(data: bytes, rng: random.Random) -> bytes:
  """Flips, truncates, extends, swaps, duplicates, removes."""
  mutant = bytearray(data)
  start, stop = sorted(rng.randrange(len(data) + 1) for _ in range(2))
  other = rng.randrange(len(data))
  kind = rng.randrange(7)
  if kind == 0:
    mutant[other] ^= 1 << rng.randrange(8)
  elif kind == 1:
    del mutant[other:]
  elif kind == 2:
    mutant += rng.randbytes(rng.randrange(1, 40))
  elif kind == 3:
    start = rng.randrange(len(data))
    mutant[start], mutant[other] = mutant[other], mutant[start]
  elif kind == 4:
    mutant[other:other] = mutant[start:stop]
  elif kind == 5:
    del mutant[start:stop]
  else:
    mutant[other : other + 8] = rng.randbytes(8)
  return bytes(mutant)


@pytest.mark.parametrize('name', GOLDENS)
def test_damaged_files_are_refused_or_the_original(tmp_path, name, long):
  delta, seed = GOLDENS[name]
  original = (GOLDEN / name).read_bytes()
  rng = random.Random(0)
  file = tmp_path / 'a.safetensors'
  refused = 0
  for _ in range(34_000 if long else 1000):
    mutant = _mutated(original, rng)
    file.write_bytes(mutant)
    try:
      found = container.read(file, seed=seed)
    except delta_lib.DeltaError:
      refused += 1
      continue
    assert found == delta and mutant == original
  assert refused


def test_changed_bits_are_noticed(tmp_path):
  original = (GOLDEN / 'mixed_v1.0.safetensors').read_bytes()
  file = tmp_path / 'a.safetensors'
  for bit in range(0, 8 * len(original), 29):  # meets every bit of bytes
    mutant = bytearray(original)
    mutant[bit // 8] ^= 1 << bit % 8
    file.write_bytes(mutant)
    with pytest.raises(delta_lib.DeltaError):
      container.read(file)


@pytest.mark.parametrize('name', GOLDENS)
def test_forged_files_are_refused_or_valid(tmp_path, name, long):
  """Damage with a matching hash: the parser alone has to hold."""
  seed = GOLDENS[name][1]
  original = (GOLDEN / name).read_bytes()
  (length,) = struct.unpack_from('<Q', original)
  parts = [8 + length]
  header = json.loads(original[8 : 8 + length])
  header.pop('__metadata__')
  parts += [8 + length + t['data_offsets'][1] for t in header.values()]
  rng = random.Random(1)
  file = tmp_path / 'a.safetensors'
  outcomes = {True: 0, False: 0}
  for _ in range(34_000 if long else 700):
    # One section is damaged at a time, or most would never be reached.
    section = rng.randrange(len(parts) - 1)
    start, stop = ([0, *parts])[section : section + 2]
    mutant = bytearray(original)
    for _ in range(rng.randrange(1, 4)):
      if stop > start:
        mutant[rng.randrange(start, stop)] = rng.randrange(256)
    file.write_bytes(_sealed(bytes(mutant)))
    try:
      found = container.read(file, seed=seed)
    except delta_lib.DeltaError:
      outcomes[False] += 1
      continue
    outcomes[True] += 1
    for entry in found.entries.values():
      steps = np.diff(entry.positions, prepend=-1)
      assert not entry.size or steps.min() >= 1
      assert not entry.size or entry.positions[-1] < math.prod(entry.shape)
      assert entry.values.size == entry.positions.size
  assert all(outcomes.values()), outcomes


def test_forged_files_take_no_more_than_their_share_of_memory(tmp_path):
  original = (GOLDEN / 'many_v1.0.safetensors').read_bytes()
  file = tmp_path / 'a.safetensors'
  rng = random.Random(2)
  container.read(GOLDEN / 'many_v1.0.safetensors')
  worst = 0
  for _ in range(60):
    mutant = bytearray(original)
    mutant[rng.randrange(len(mutant))] = rng.randrange(256)
    file.write_bytes(_sealed(bytes(mutant)))
    tracemalloc.start()
    try:
      container.read(file)
    except delta_lib.DeltaError:
      worst = max(worst, tracemalloc.get_traced_memory()[1])
    finally:
      tracemalloc.stop()
  # One byte a value here and eight a position in memory: int8 is the extreme.
  assert worst <= 4 * len(original) + 2**20


# Kills.


def test_kill_while_writing_leaves_one_of_the_two_deltas(tmp_path, long):
  file = tmp_path / 'a.safetensors'
  deltas = [_uniform(300_000, k) for k in (30_000, 40_000)]
  container.write(deltas[0], file)
  # One process imports everything; those that are killed are forks of it.
  code = textwrap.dedent("""
    import itertools, os, sys
    from dst_t5x.delta.file import container
    from tests.delta.file.test_delta_file import _uniform
    deltas = [_uniform(300_000, k) for k in (30_000, 40_000)]
    print('ready', flush=True)
    for line in sys.stdin:
      child = os.fork()
      if not child:
        for delta in itertools.cycle(deltas):
          container.write(delta, sys.argv[1])
      print(child, flush=True)
      os.waitpid(child, 0)
      print('dead', flush=True)
  """)
  delays, seen = random.Random(0), set()
  with subprocess.Popen(
    [sys.executable, '-W', 'ignore', '-c', code, file],
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as parent:
    assert parent.stdin is not None and parent.stdout is not None
    assert parent.stdout.readline() == 'ready\n'
    for _ in range(1000 if long else 20):
      parent.stdin.write('go\n')
      parent.stdin.flush()
      child = int(parent.stdout.readline())
      time.sleep(delays.uniform(0.01, 0.06))
      os.kill(child, signal.SIGKILL)
      assert parent.stdout.readline() == 'dead\n'
      seen.add(deltas.index(container.read(file)))
    parent.stdin.close()
  assert seen == {0, 1}


def test_a_full_disk_leaves_the_old_delta(tmp_path, monkeypatch):
  file = tmp_path / 'a.safetensors'
  container.write(MIXED, file)

  def full(_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(atomic.os, 'fsync', full)
  with pytest.raises(OSError, match='No space left'):
    container.write(MANY, file)
  monkeypatch.undo()
  assert container.read(file) == MIXED
  assert [path.name for path in tmp_path.iterdir()] == ['a.safetensors']
