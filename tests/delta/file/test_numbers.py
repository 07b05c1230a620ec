"""Numbers as bits: exact, near the entropy bound, safe against damage."""

import math
import time

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from dst_t5x.delta.file import bit_fields, rans
from dst_t5x.delta.file import numbers as coding
from tests import delta_reference


def _positions(n: int, k: int, seed: int = 0) -> np.ndarray:
  """k of n positions, uniform, sorted, without an array of n."""
  rng = np.random.default_rng(seed)
  if 4 * k > n:
    return np.sort(rng.permutation(n)[:k])
  found = np.empty(0, np.int64)
  while found.size < k:
    more = rng.integers(0, n, k - found.size)
    found = np.unique(np.concatenate([found, more]))
  return found


def _steps(n: int, k: int) -> np.ndarray:
  return np.diff(_positions(n, k), prepend=-1)


def _spread(k: int) -> np.ndarray:
  """Numbers of very different sizes, which suit no Rice code."""
  return np.minimum(np.random.default_rng(0).zipf(1.3, k), 10**6)


def _bound(n: int, k: int) -> float:
  """log2 C(n, k) (bits)."""
  gamma = math.lgamma
  return (gamma(n + 1) - gamma(k + 1) - gamma(n - k + 1)) / math.log(2)


# Fields.


@hypothesis.given(
  st.lists(
    st.integers(0, 63).flatmap(
      lambda w: st.tuples(st.integers(0, (1 << w) - 1), st.just(w))
    ),
    max_size=300,
  )
)
def test_fields_are_what_big_integers_say(fields):
  values = np.array([v for v, _ in fields], np.uint64)
  widths = np.array([w for _, w in fields], np.int64)
  whole, used = 0, 0
  for value, width in fields:
    whole |= value << used
    used += width
  data = bit_fields.pack(values, widths)
  assert data == whole.to_bytes((used + 7) // 8, 'little')
  np.testing.assert_array_equal(bit_fields.unpack(data, widths), values)


@pytest.mark.parametrize('data', [b'', b'\x15\x00', b'\x35'])
def test_fields_refuse_other_sizes_and_bits_behind_the_last(data):
  assert bit_fields.unpack(b'\x15', np.array([2, 3], np.int64)).tolist() == [
    1,
    5,
  ]
  with pytest.raises(ValueError, match='field'):
    bit_fields.unpack(data, np.array([2, 3], np.int64))


# Symbols.


@hypothesis.given(
  st.integers(0, 2**32 - 1),
  st.integers(1, 5000),
  st.sampled_from([1, 2, 30, 256]),
  st.floats(0.0, 3.0),
)
def test_symbols_come_back(seed, count, kinds, skew):
  rng = np.random.default_rng(seed)
  weights = np.arange(1, kinds + 1) ** -skew
  symbols = rng.choice(kinds, count, p=weights / weights.sum()).astype(np.uint8)
  table = rans.frequencies(symbols)
  assert table.sum() == rans.TOTAL
  np.testing.assert_array_equal(
    table > 0, np.bincount(symbols, minlength=256) > 0
  )
  states, words = rans.encode(symbols, table)
  np.testing.assert_array_equal(
    rans.decode(states, words, table, count=count), symbols
  )


def test_symbols_cost_their_entropy():
  symbols = np.random.default_rng(0).geometric(0.2, 500_000).astype(np.uint8)
  states, words = rans.encode(symbols, rans.frequencies(symbols))
  shares = np.bincount(symbols) / symbols.size
  shares = shares[shares > 0]
  entropy = -float((shares * np.log2(shares)).sum()) * symbols.size
  assert 8 * (words.nbytes + states.nbytes) < 1.01 * entropy


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda s, w: (s[:-1], w), 'out of range'),
    (lambda s, w: (s >> np.uint32(16), w), 'out of range'),
    (lambda s, w: (s, w[:-1]), 'end too early'),
    (lambda s, w: (s, np.append(w, w[:1])), 'damaged'),
    (lambda s, w: (s ^ np.uint32(1), w), 'damaged|early'),
    (lambda s, w: (s, w ^ np.uint16(1)), 'damaged|early'),
  ],
)
def test_symbols_refuse_states_and_words_that_nobody_wrote(damage, message):
  symbols = np.random.default_rng(0).integers(0, 5, 999).astype(np.uint8)
  table = rans.frequencies(symbols)
  states, words = damage(*rans.encode(symbols, table))
  with pytest.raises(ValueError, match=message):
    rans.decode(states, words, table, count=999)


# Numbers.

EXTREMES = np.array(
  [1, 2, 3, 4, 5, 6, 7, 8, 9, 2**31, 2**32 + 1, 2**40], np.int64
)


def test_numbers_have_the_bytes_that_the_specification_says():
  # By hand: with b = 1 the numbers less one, 0 8 1, have the low bits 0 0 1,
  # and the rests 0 4 0 are written 1 00001 1.
  assert coding.encode(np.array([1, 9, 2], np.int64)) == bytes(
    [1, 0b100, 0b1100001]
  )


@hypothesis.given(
  st.lists(st.integers(1, 2**40) | st.integers(1, 40), max_size=200)
)
def test_numbers_come_back(numbers):
  data = coding.encode(np.array(numbers, np.int64))
  assert coding.decode(data, len(numbers)).tolist() == numbers
  assert delta_reference.numbers(data, len(numbers)) == numbers


@hypothesis.settings(max_examples=10)
@hypothesis.given(
  st.integers(0, 2**32 - 1),
  st.sampled_from([4096, 5000, 8192, 8193, 20_000]),
  st.floats(0.00001, 1.0),
)
def test_many_numbers_come_back(seed, count, share):
  rng = np.random.default_rng(seed)
  numbers = rng.geometric(share, count)
  numbers[rng.integers(0, count, EXTREMES.size)] = EXTREMES
  data = coding.encode(numbers)
  np.testing.assert_array_equal(coding.decode(data, count), numbers)
  assert delta_reference.numbers(data, count) == numbers.tolist()


@pytest.mark.parametrize('count', [coding.CHUNK, coding.CHUNK + 1])
def test_numbers_come_back_from_one_chunk_and_from_two(count):
  numbers = np.random.default_rng(0).geometric(0.3, count)
  data = coding.encode(numbers)
  np.testing.assert_array_equal(coding.decode(data, count), numbers)


# 77 million parameters are T5 1.1 small's, 11 billion XXL's.
@pytest.mark.parametrize(
  ('n', 'epsilon', 'most'),
  [
    (77_000_000, 1e-6, 1.05),
    (77_000_000, 1e-5, 1.05),
    (77_000_000, 1e-4, 1.01),
    (77_000_000, 9.4e-4, 1.01),  # Rice is furthest off here
    (77_000_000, 1e-3, 1.01),
    (77_000_000, 7.5e-3, 1.01),
    (77_000_000, 1e-2, 1.01),
    (4_000_000, 0.1, 1.01),
    (6_000_000, 0.38, 1.01),  # and Golomb here
    (11_000_000_000, 1e-6, 1.05),
    (11_000_000_000, 1e-5, 1.05),
    (11_000_000_000, 1e-4, 1.01),
  ],
)
def test_positions_cost_little_more_than_the_entropy_bound(n, epsilon, most):
  k = round(n * epsilon)
  steps = _steps(n, k)
  data = coding.encode(steps)
  np.testing.assert_array_equal(coding.decode(data, k, largest=n), steps)
  assert 8 * len(data) <= most * _bound(n, k)


def test_all_positions_cost_next_to_nothing():
  assert 8 * len(coding.encode(np.ones(2_000_000, np.int64))) < 0.02 * 2_000_000


def test_clustered_positions_cost_less_than_the_bound_of_uniform_ones():
  # Embedding rows of a few frequent tokens, the rest far apart.
  rng = np.random.default_rng(0)
  rows = np.sort(rng.permutation(30_000)[:300]) * 512
  positions = np.unique((rows[:, None] + rng.integers(0, 512, 200)).reshape(-1))
  steps = np.diff(positions, prepend=-1)
  k = positions.size
  assert 8 * len(coding.encode(steps)) < 0.6 * _bound(30_000 * 512, k)


@pytest.mark.parametrize('numbers', [[0], [-1], [1, 2**40 + 1], [-(2**62)]])
def test_numbers_out_of_range_are_not_written(numbers):
  with pytest.raises(ValueError, match='range'):
    coding.encode(np.array(numbers, np.int64))


RICE = coding.encode(_steps(10_000, 100))
RANS = coding.encode(_spread(5000))
assert RANS[0] == 64


@pytest.mark.parametrize(
  ('data', 'count', 'message'),
  [
    (RICE, 99, 'Rice'),
    (RICE, 101, 'Rice|bits|expected'),
    (RICE[:-1], 100, 'Rice'),
    (RICE + b'\0', 100, 'Rice'),
    (RICE + b'\1', 100, 'Rice'),
    (b'', 1, 'expected'),
    (b'\0', 1, 'Rice'),
    (bytes([41]) + RICE[1:], 100, 'unknown code'),
    (bytes([255]), 1, 'unknown code'),
    (b'\1', 0, 'too many'),
    (RICE, 2**17, 'too many'),
    (RICE, 2**40, 'too many|expected'),
    (RANS, 4999, 'damaged|bits|too many'),
    (RANS, 5001, 'damaged|words|expected'),
    (RANS[:-1], 5000, 'expected'),
    (RANS + b'\0', 5000, 'too many'),
    (RANS[:1] + b'\x0e' + RANS[2:], 5000, 'mean nothing'),  # 1, 2, 3
    (RANS[:32] + b'\x80' + RANS[33:], 5000, 'mean nothing'),  # 255
    (RANS[:33] + b'\0\0' + RANS[35:], 5000, 'add up'),
    (bytes([64]), 5000, 'expected'),
    # Eight terabytes, if memory were taken first.
    (bytes([64]) + bytes(999), 2**40, 'expected'),
  ],
)
def test_damaged_numbers_are_refused(data, count, message):
  with pytest.raises(ValueError, match=message):
    coding.decode(data, count)


def test_numbers_above_the_callers_limit_are_refused():
  data = coding.encode(np.array([1, 7], np.int64))
  assert coding.decode(data, 2, largest=7).tolist() == [1, 7]
  with pytest.raises(ValueError, match='range is 1 to 6'):
    coding.decode(data, 2, largest=6)


@pytest.mark.parametrize('original', [RICE, RANS], ids=['rice', 'rans'])
def test_mutated_numbers_are_refused_or_in_range(original, long):
  count = 100 if original is RICE else 5000
  rng = np.random.default_rng(0)
  accepted = 0
  for _ in range(20_000 if long else 500):
    data = bytearray(original)
    for _ in range(rng.integers(1, 4)):
      data[rng.integers(len(data))] = rng.integers(256)
    try:
      found = coding.decode(bytes(data), count, largest=10**6)
    except ValueError:
      continue
    accepted += 1
    assert found.size == count and 1 <= found.min() <= found.max() <= 10**6
  # Low bits carry no redundancy: without a digest they pass.
  assert accepted


@pytest.mark.slow
def test_speed_is_tens_of_millions_of_numbers_a_second():
  steps = _steps(77_000_000, 770_000)
  data = coding.encode(steps)
  for work in (
    lambda: coding.encode(steps),
    lambda: coding.decode(data, steps.size),
  ):
    start = time.process_time()
    for _ in range(5):
      work()
    assert 5 * steps.size / (time.process_time() - start) > 5e6
