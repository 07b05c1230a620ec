"""Apply, revert, swap: exact on every kind of array, in both directions."""

import dataclasses
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from dst_t5x import delta as delta_lib
from dst_t5x.arrays import flat_access
from tests.delta.example_params import (
  BF16,
  KINDS,
  SEED,
  A,
  B,
  as_kind,
  assert_same,
  assert_same_kind,
)

# Takes more than its annotations say: lists, names of dtypes.
Entry: Any = delta_lib.DeltaEntry


@pytest.mark.parametrize('kind', KINDS)
def test_apply_then_revert_restores_every_bit(kind):
  delta = delta_lib.diff(SEED, A)
  seed = as_kind(kind, SEED)
  applied = delta_lib.apply(seed, delta)
  assert_same(applied, A)
  assert_same_kind(applied, seed)
  for values in (seed, SEED):
    reverted = delta_lib.revert(applied, delta, values)
    assert_same(reverted, SEED)
    assert_same_kind(reverted, seed)
  assert_same(seed, SEED)  # the arguments are as they were
  assert_same(applied, A)


@pytest.mark.parametrize('kind', KINDS)
def test_swap_is_revert_and_apply(kind):
  a, b = delta_lib.diff(SEED, A), delta_lib.diff(SEED, B)
  applied = delta_lib.apply(as_kind(kind, SEED), a)
  swapped = delta_lib.swap(applied, a, b, SEED)
  assert_same(swapped, B)
  assert_same_kind(swapped, applied)
  assert_same(applied, A)
  assert_same(delta_lib.swap(swapped, b, b, SEED), B)


def test_swap_writes_no_position_twice(monkeypatch):
  # Which write would win is undefined on an accelerator.
  scatter = flat_access.scatter

  def once(leaf, positions, values, path):
    assert np.unique(positions).size == positions.size, path
    return scatter(leaf, positions, values, path)

  monkeypatch.setattr(flat_access, 'scatter', once)
  a, b = delta_lib.diff(SEED, A), delta_lib.diff(SEED, B)
  shared = set(a.entries['encoder/kernel'].positions)
  assert shared & set(b.entries['encoder/kernel'].positions)
  assert_same(delta_lib.swap(A, a, b, SEED), B)


def test_unchanged_arrays_are_shared_and_changed_ones_are_not():
  tuned = {**SEED, 'gain': np.float32(5.0).reshape(())}
  applied = delta_lib.apply(SEED, delta_lib.diff(SEED, tuned))
  assert applied['table'] is SEED['table']
  assert not np.shares_memory(applied['gain'], SEED['gain'])


@hypothesis.given(st.data())
def test_any_two_trees_differ_by_a_delta(data):
  dtype = data.draw(st.sampled_from([np.uint8, np.float16, np.float32, BF16]))
  width = np.dtype(dtype).itemsize
  shape = data.draw(st.lists(st.integers(0, 4), max_size=3).map(tuple))
  size = int(np.prod(shape))
  words = st.integers(0, 256**width - 1)
  old, new = (
    np.array(data.draw(st.lists(words, min_size=size, max_size=size)))
    .astype(f'u{width}')
    .view(dtype)
    .reshape(shape)
    for _ in range(2)
  )
  if dtype is not np.uint8:
    new = np.where(np.isfinite(new) | ~np.isfinite(old), new, old)
  seed, tuned = {'a': old}, {'a': new}
  delta = delta_lib.diff(seed, tuned)
  applied = delta_lib.apply(seed, delta)
  assert_same(applied, tuned)
  assert_same(delta_lib.revert(applied, delta, seed), seed)


def test_parameters_need_not_be_named_if_they_did_not_change():
  whole = delta_lib.diff(SEED, {**SEED, 'gain': A['gain']})
  part = dataclasses.replace(whole, entries={'gain': whole.entries['gain']})
  assert part != whole
  assert_same(delta_lib.apply(SEED, part), {**SEED, 'gain': A['gain']})


def test_positions_beyond_2_to_the_31_are_gathered_and_scattered():
  # A broadcast array has the shape without the memory.
  wide = np.broadcast_to(np.float32(1.5), (2**17, 2**16))
  place = 2**17 * 2**16 - 1
  assert (
    flat_access.gather(wide, np.array([0, place], np.int64), 'a').tolist()
    == [1.5] * 2
  )
  entry = Entry(wide.shape, wide.dtype, [place], np.array([2], np.float32))
  assert entry.positions.tolist() == [place]
