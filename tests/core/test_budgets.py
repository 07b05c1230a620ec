"""Budgets: exact sums, within one of every quota, and what is refused."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from dst_t5x.core.budgets import allocate
from dst_t5x.core.silos import SiloError
from tests import untyped

SIZES = st.lists(st.integers(0, 10**9), min_size=1, max_size=40).filter(any)


@hypothesis.settings(max_examples=200)
@hypothesis.given(
  SIZES, st.floats(0, 1, exclude_min=True), st.integers(0, 2**40)
)
def test_budgets_sum_exactly_and_are_within_one_of_their_quota(
  sizes, epsilon, budget
):
  total = sum(sizes)
  by_count = allocate(sizes, budget=budget % total + 1)
  assert sum(by_count) == budget % total + 1
  if round(epsilon * total):
    by_fraction = allocate(sizes, epsilon=epsilon)
    assert sum(by_fraction) == round(epsilon * total)
  else:
    by_fraction = by_count
  for counts in (by_count, by_fraction):
    for k, size in zip(counts, sizes, strict=True):
      assert 0 <= k <= size
      # |k − quota| < 1, in whole numbers.
      assert abs(k * total - sum(counts) * size) < total


@pytest.mark.parametrize(
  'sizes, budget, wanted',
  [
    ([60, 30, 10], 5, (3, 2, 0)),  # quotas 3, 1.5, 0.5: the tie goes first
    ([1, 1, 1, 1], 2, (1, 1, 0, 0)),
    ([1000, 1, 1], 10, (10, 0, 0)),  # small silos may get nothing
    ([7, 0, 3], 10, (7, 0, 3)),
    ([5], 3, (3,)),
  ],
)
def test_hand_worked_budgets(sizes, budget, wanted):
  assert allocate(sizes, budget=budget) == wanted
  fraction = budget / sum(sizes)
  assert allocate(sizes, epsilon=fraction) == wanted


@pytest.mark.parametrize(
  'given, message',
  [
    ({}, 'not neither'),
    ({'epsilon': 0.1, 'budget': 3}, 'not both'),
    ({'epsilon': 0.0}, r'epsilon=0.0 must be a fraction in \(0, 1\]'),
    ({'epsilon': -0.1}, r'epsilon=-0.1 must'),
    ({'epsilon': 1.5}, r'epsilon=1.5 must.*a count is BUDGET'),
    ({'epsilon': float('nan')}, r'epsilon=nan must'),
    ({'epsilon': float('inf')}, r'epsilon=inf must'),
    ({'epsilon': True}, r'epsilon=True must'),
    ({'epsilon': '0.1'}, r"epsilon='0.1' must"),
    ({'epsilon': 1e-9}, 'rounds to 0; the smallest'),
    ({'budget': 0}, 'from 1 to 100'),
    ({'budget': -1}, 'from 1 to 100'),
    ({'budget': 101}, 'from 1 to 100'),
    ({'budget': 2.0}, 'whole number'),
    ({'budget': True}, 'whole number'),
    ({'budget': '3'}, 'whole number'),
  ],
)
def test_wrong_budgets(given, message):
  with untyped.calls(), pytest.raises(SiloError, match=message):
    allocate([60, 40], **given)


def test_numbers_of_numpy_are_numbers():
  with untyped.calls():
    assert allocate([8], epsilon=np.float32(0.5)) == (4,)
    assert allocate([8], budget=np.int64(4)) == (4,)
  with pytest.raises(SiloError, match='no parameters'):
    allocate([0], budget=1)
