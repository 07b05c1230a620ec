"""What is written to a file comes back, bit for bit."""

import json
import math

import hypothesis
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import strategies as st

from dst_t5x import delta as delta_lib
from dst_t5x.delta.file import container
from tests import delta_reference
from tests.delta.file.example_deltas import (
  BF16,
  GOLDEN,
  MIXED,
  make_entry,
  make_info,
)

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
  return make_entry(dtype, shape, positions, words)


_PATHS = st.sampled_from(['a', 'b/c', 'b/d', 'ß', '0', 'z/"\\\n'])

_DELTAS = st.builds(
  lambda entries, epsilon, step: delta_lib.SubsetDelta(
    entries, make_info(epsilon=epsilon, step=step)
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


def test_an_empty_delta_has_no_values(tmp_path):
  file = tmp_path / 'a.safetensors'
  empty = delta_lib.SubsetDelta({}, make_info())
  container.write(empty, file)
  assert container.read(file) == empty
  tensors = safetensors.numpy.load_file(file)
  assert tensors.keys() == {'parameters', 'positions', 'sha256'}
  assert tensors['positions'].size == 0


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
