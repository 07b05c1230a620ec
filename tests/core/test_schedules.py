"""Schedules: exact whole numbers, as Python counts."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from dst_t5x.core import schedules

BUDGETS = (0, 1, 2, 7, 1000, 123_456_789, 2**31 - 1)


@functools.cache
def targeting(steps):
  schedule = schedules.incremental(steps)
  return jax.jit(lambda count: schedules.target(schedule, count, BUDGETS))


@pytest.mark.parametrize('steps', [1, 3, 1000, 262_144, 2**29 - 1])
@hypothesis.given(st.data())
def test_incremental_is_the_floor_of_kt_over_T(steps, data):
  count = data.draw(st.integers(0, min(2 * steps, 2**31 - 2)))
  got = targeting(steps)(jnp.int32(count))
  t = min(count + 1, steps)
  assert got.tolist() == [k * t // steps for k in BUDGETS]


def test_hand_worked():
  # B = 10 over T = 4: 2.5 a step.
  grow = schedules.incremental(4)
  sizes = [
    schedules.target(grow, jnp.int32(t), [10, 2]).tolist() for t in range(6)
  ]
  assert sizes == [[2, 0], [5, 1], [7, 1], [10, 2], [10, 2], [10, 2]]


@pytest.mark.parametrize('schedule', [schedules.every_step(), schedules.once()])
def test_the_whole_budget_at_every_step(schedule):
  for count in (0, 1, 100):
    got = schedules.target(schedule, jnp.int32(count), [3, 0])
    np.testing.assert_array_equal(got, [3, 0])


def test_an_open_length_and_too_many_steps_are_refused():
  with pytest.raises(ValueError, match='TRAIN_STEPS'):
    schedules.target(schedules.incremental(), jnp.int32(0), [1])
  with pytest.raises(ValueError, match='must be >= 1'):
    schedules.incremental(0)
  with pytest.raises(ValueError, match='too many'):
    schedules.target(schedules.incremental(2**29), jnp.int32(0), [1])
