"""What a delta consists of: checked when it is made, then unchangeable."""

import dataclasses
import struct
from typing import Any

import numpy as np
import pytest

from dst_t5x import delta as delta_lib
from dst_t5x.delta import types
from tests.delta.example_params import (
  HASH,
  SEED,
  A,
)

# Takes more than its annotations say: lists, names of dtypes.
Entry: Any = delta_lib.DeltaEntry
ONES = np.ones(2, np.float32)


@pytest.mark.parametrize(
  ('shape', 'dtype', 'positions', 'values', 'error', 'message'),
  [
    ((4,), 'float32', [2, 1], ONES, 'PositionError', '1 follows 2'),
    ((4,), 'float32', [1, 1], ONES, 'PositionError', '1 follows 1'),
    ((4,), 'float32', [-1, 1], ONES, 'PositionError', 'range is 0 to 3'),
    ((4,), 'float32', [1, 4], ONES, 'PositionError', 'range is 0 to 3'),
    ((0,), 'float32', [0, 1], ONES, 'PositionError', '0 to -1'),
    ((4,), 'float32', [1], ONES, 'PositionError', 'equal length'),
    ((4,), 'float32', [[0, 1]], ONES[None], 'PositionError', 'equal length'),
    ((4,), 'float32', [0.0, 1.0], ONES, 'PositionError', 'whole numbers'),
    ((4,), 'float32', [True, False], ONES, 'PositionError', 'whole numbers'),
    ((4,), 'float16', [0, 1], ONES, 'DtypeMismatchError', 'float32 instead'),
    ((4,), 'complex64', [0, 1], ONES, 'DtypeMismatchError', 'not one of'),
    ((-4,), 'float32', [0, 1], ONES, 'ShapeMismatchError', 'negative'),
    (
      (4,),
      'float32',
      np.array([0, 2**63], np.uint64),
      ONES,
      'PositionError',
      'follows|range',
    ),
  ],
)
def test_an_entry_refuses(shape, dtype, positions, values, error, message):
  with pytest.raises(getattr(delta_lib, error), match=message):
    Entry(shape, dtype, positions, values)


def test_an_entry_cannot_be_changed():
  positions, values = np.array([0, 3], np.int64), ONES.copy()
  entry = Entry((4,), np.dtype('float32'), positions, values)
  positions[0], values[0] = 2, 9.0
  assert entry.positions.tolist() == [0, 3]
  assert entry.values.tolist() == [1.0, 1.0]
  for array in (entry.positions, entry.values):
    with pytest.raises(ValueError, match='read-only'):
      array[0] = 1
  with pytest.raises(dataclasses.FrozenInstanceError):
    entry.shape = (5,)


def test_a_delta_cannot_be_changed():
  entries = {'a': Entry((4,), 'float32', [0, 3], ONES)}
  delta = delta_lib.SubsetDelta(entries, delta_lib.diff(SEED, A).info)
  entries['b'] = entries['a']
  assert list(delta.entries) == ['a']
  with pytest.raises(TypeError):
    entries_of: Any = delta.entries
    entries_of['b'] = entries['a']


@pytest.mark.parametrize(
  'change',
  [
    {'shape': (2, 2)},
    {'dtype': np.dtype('int32'), 'values': ONES.view(np.int32)},
    {'positions': [0, 2]},
    {'values': -ONES},
  ],
)
def test_equality_sees_everything(change):
  entry = Entry((4,), 'float32', [0, 3], ONES)
  assert entry == Entry([4], '>f4', [0, 3], ONES.astype('>f4'))
  assert entry != dataclasses.replace(entry, **change)
  info = delta_lib.diff(SEED, A).info
  one = delta_lib.SubsetDelta({'a': entry}, info)
  other = dataclasses.replace(entry, **change)
  assert one == delta_lib.SubsetDelta({'a': entry}, info)
  assert one != delta_lib.SubsetDelta({'a': other}, info)
  assert one != delta_lib.SubsetDelta({'b': entry}, info)
  assert one != dataclasses.replace(
    one, info=dataclasses.replace(info, step=99)
  )


def test_equality_compares_bits():
  def entry(*words):
    values = np.frombuffer(struct.pack('<2I', *words), np.float32)
    return Entry((4,), 'float32', [0, 3], values)

  assert entry(0x7FC00001, 0) == entry(0x7FC00001, 0)
  assert entry(0x7FC00001, 0) != entry(0x7FC00002, 0)
  assert entry(0x7FC00001, 0) != entry(0x7FC00001, 0x80000000)


@pytest.mark.parametrize('path', ['', '/', 'a//b', 'a/', 'b/c'])
def test_paths_must_name_parameters(path):
  entry = Entry((4,), 'float32', [0, 3], ONES)
  with pytest.raises(delta_lib.UnknownParameterError):
    delta_lib.SubsetDelta(
      {path: entry, 'b': entry}, delta_lib.diff(SEED, A).info
    )


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('method', None),
    ('silo_rule', 3),
    ('epsilon', 0.0),
    ('epsilon', 1.5),
    ('epsilon', float('nan')),
    ('epsilon', 1),
    ('budget', -1),
    ('budget', True),
    ('step', -1),
    ('step', 1.0),
    ('seed_fingerprint', 'sha256:0'),
    ('replaced_hash', 64 * '0'),
    ('result_fingerprint', HASH.upper()),
  ],
)
def test_info_must_make_sense(field, value):
  info = delta_lib.diff(SEED, A).info
  with pytest.raises(delta_lib.InfoError, match=field):
    dataclasses.replace(info, **{field: value})


def test_every_error_is_a_value_error():
  errors = [
    value
    for value in vars(types).values()
    if isinstance(value, type) and issubclass(value, Exception)
  ]
  assert len(errors) > 10
  assert all(issubclass(error, delta_lib.DeltaError) for error in errors)
  assert issubclass(delta_lib.DeltaError, ValueError)
