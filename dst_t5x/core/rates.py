"""Learning rates for a budget."""


def for_fraction(
  epsilon: float | None, *, at_one_percent: float, power: float = 0.25
) -> float:
  """Returns a learning rate that rises as the subset shrinks.

  η(ε) = η₁ (0.01 / ε)^power

  A small subset resets most of each update, and a higher rate makes up for it.
  The paper shows the direction (DST, appendix F and figure 9) and publishes no
  numbers; the form and the default are ours.

  Args:
    epsilon: fraction of all parameters in (0, 1]; None for 0.01.
    at_one_percent: η₁, the rate at ε = 0.01.
    power: how fast it rises.

  Returns:
    The learning rate.

  Raises:
    ValueError: if `epsilon` is no fraction.

  Example:
    >>> for_fraction(0.01, at_one_percent=0.03)
    0.03
    >>> round(for_fraction(1e-6, at_one_percent=0.03), 6)
    0.3

  Source: DST, figure 9, for the direction.
  """
  if epsilon is None:
    return at_one_percent
  if not 0.0 < epsilon <= 1.0:
    raise ValueError(f'epsilon={epsilon!r} must be a fraction in (0, 1]')
  return at_one_percent * (0.01 / epsilon) ** power
