"""How many parameters of every silo may change."""

from collections.abc import Sequence
from numbers import Integral, Real

from dst_t5x.core.silos import SiloError


def allocate(
  sizes: Sequence[int],
  *,
  epsilon: float | None = None,
  budget: int | None = None,
) -> tuple[int, ...]:
  """Returns how many parameters of each silo may differ from the seed.

  k_S = K |S| / n by largest remainder, with K = round(ε n): every k_S is its
  quota rounded up or down, and they sum to exactly K. A small silo may get 0.

  Args:
    sizes: how many parameters each silo holds (count).
    epsilon: fraction of all parameters in (0, 1].
    budget: K itself (count), from 1 to n; instead of `epsilon`.

  Returns:
    One count a silo.

  Raises:
    SiloError: if both or neither of epsilon and budget are given, or either
      is out of range.

  Example:
    >>> allocate([60, 30, 10], epsilon=0.05)
    (3, 2, 0)

  Source: DST, equation 1; largest remainder makes its sum exact.
  """
  total = sum(sizes)
  if not total:
    raise SiloError('there are no parameters to share a budget')
  if (epsilon is None) == (budget is None):
    raise SiloError(
      'give either EPSILON (a fraction) or BUDGET (a count), not '
      + ('both' if epsilon is not None else 'neither')
      + f': epsilon={epsilon!r}, budget={budget!r}'
    )
  if epsilon is not None:
    real = isinstance(epsilon, Real) and not isinstance(epsilon, bool)
    if not real or not 0.0 < epsilon <= 1.0:
      raise SiloError(
        f'epsilon={epsilon!r} must be a fraction in (0, 1]; a count is BUDGET'
      )
    count = round(epsilon * total)
    if not count:
      raise SiloError(
        f'epsilon={epsilon!r} of {total} parameters rounds to 0; the smallest '
        f'that selects anything is about {1 / total:.2g}'
      )
  else:
    if not isinstance(budget, Integral) or isinstance(budget, bool):
      raise SiloError(f'budget={budget!r} must be a whole number')
    if not 1 <= budget <= total:
      raise SiloError(
        f'budget={budget} must be from 1 to {total}, the number of parameters'
      )
    count = int(budget)
  floors = [count * size // total for size in sizes]
  remainders = [count * size % total for size in sizes]
  # Ties go to the earlier silo, so the result depends on nothing else.
  order = sorted(range(len(sizes)), key=lambda i: (-remainders[i], i))
  for i in order[: count - sum(floors)]:
    floors[i] += 1
  return tuple(floors)
