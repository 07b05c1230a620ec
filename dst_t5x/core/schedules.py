"""When the subset is chosen again, and how large it is then."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32


class Schedule(NamedTuple):
  """When parameters enter the subset.

  Attributes:
    keep: False if the whole subset is chosen anew at every step; True if a
      parameter that is in the subset stays there.
    steps: number of steps over which a kept subset grows to its budget; None
      stands for all steps of the run.
  """

  keep: bool
  steps: int | None


def every_step() -> Schedule:
  """Returns the schedule of DST: the whole subset anew at every step.

  Example:
    >>> every_step()
    Schedule(keep=False, steps=1)

  Source: DST, algorithm 1.
  """
  return Schedule(keep=False, steps=1)


def once() -> Schedule:
  """Returns the schedule without churn: chosen at the first step, then kept.

  Example:
    >>> once()
    Schedule(keep=True, steps=1)

  Source: DST, appendix E; static-S in ID3, section 3.
  """
  return Schedule(keep=True, steps=1)


def incremental(steps: int | None = None) -> Schedule:
  """Returns the schedule that grows the subset by B/T parameters a step.

  After t steps a silo with budget k holds floor(k t / T) parameters.

  Args:
    steps: T (count); None stands for the length of the run.

  Returns:
    The schedule.

  Raises:
    ValueError: if `steps` is not positive.

  Example:
    >>> incremental(100)
    Schedule(keep=True, steps=100)

  Source: ID3, section 3.2, uniform unmasking scheduler.
  """
  if steps is not None and steps < 1:
    raise ValueError(f'incremental schedule over {steps} steps: must be >= 1')
  return Schedule(keep=True, steps=steps)


def target(
  schedule: Schedule, count: Int32[Array, ''], budgets: Sequence[int]
) -> Int32[Array, ' silos']:
  """Returns how many parameters of each silo may be in the subset now.

  floor(k min(t, T) / T), exactly, with t = count + 1.

  Args:
    schedule: with `steps` filled in.
    count: steps taken before this one (count).
    budgets: k of every silo (count).

  Returns:
    One count a silo.

  Raises:
    ValueError: if the schedule's number of steps is open.

  Example:
    >>> target(incremental(4), jnp.int32(1), [10, 2])
    Array([5, 1], dtype=int32)
  """
  if schedule.steps is None:
    raise ValueError(
      'this schedule grows over the whole run: its number of steps is needed '
      '(total_steps, TRAIN_STEPS)'
    )
  k = np.asarray(budgets, np.int32)
  if not schedule.keep or schedule.steps == 1:
    return jnp.asarray(k)
  steps = schedule.steps
  t = jnp.minimum(count + jnp.int32(1), jnp.int32(steps))
  whole = jnp.asarray(k // steps) * t
  return whole + _multiply_divide(jnp.asarray(k % steps), t, steps)


def _multiply_divide(
  factor: Int32[Array, ' silos'], t: Int32[Array, ''], divisor: int
) -> Int32[Array, ' silos']:
  """Returns floor(factor * t / divisor) without overflow, factor < divisor.

  Takes t bit by bit from the top and keeps factor * prefix as quotient and
  remainder, so nothing exceeds 3 * divisor.
  """
  if divisor >= 2**29:
    raise ValueError(f'{divisor} steps are too many; the most is {2**29 - 1}')

  def take_bit(
    i: Array | int, carry: tuple[Array, Array]
  ) -> tuple[Array, Array]:
    quotient, rest = carry
    bit = (t >> (jnp.int32(29) - i)) & jnp.int32(1)
    rest = rest * 2 + factor * bit
    return quotient * 2 + rest // divisor, rest % divisor

  zero = jnp.zeros_like(factor)
  quotient, _ = jax.lax.fori_loop(
    jnp.int32(0), jnp.int32(30), take_bit, (zero, zero)
  )
  return quotient
