"""How much every parameter deserves a place in the subset.

A score is a pure elementwise function. Larger is better, all scores are
non-negative float32, and a parameter whose score is 0 is never selected. The
first three are the distances of table 1 of the DST paper, taken between the
seed and the proposed parameters (its equations 5 and 6).

`Score` says which arrays a function reads and whether the step may evaluate it
more than once: only functions made of exactly rounded operations give the same
bits wherever the compiler puts them.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, UInt32

# Stands for |θ⁰| = 0 in the relative distance. A power of two, so dividing by
# it is exact; small enough that a parameter that leaves zero outranks every
# parameter that does not, large enough that the quotient stays finite.
ZERO_SEED = 2.0**-80

_LARGEST = 0x7F7FFFFF  # bit pattern of the largest finite float32
_SMALLEST = 0x00800000  # bit pattern of the smallest normal float32


class Score(NamedTuple):
  """A scoring function and what it reads.

  Attributes:
    fn: takes the arrays named in `reads`, in that order, each of the shape of
      one parameter tensor; returns float32 of the same shape.
    reads: any of 'seed', 'params', 'proposed', 'gradient', 'noise', 'eligible'.
    recompute: True if every operation in `fn` is exactly rounded, so that it
      may be evaluated again instead of being kept in memory.
  """

  fn: Callable[..., jax.Array]
  reads: tuple[str, ...]
  recompute: bool = False


def inverse_relative(
  seed: Float[Array, '*s'], proposed: Float[Array, '*s']
) -> Float32[Array, '*s']:
  """Returns the inverse-relative distance, the paper's default.

  d = |θ⁰ (θ̂ − θ⁰)|. A parameter whose seed value is 0 scores 0 and so stays at
  the seed for ever, as the equation says.

  Args:
    seed: θ⁰, any shape, floating.
    proposed: θ̂, same shape.

  Returns:
    The distance, float32, same shape.

  Example:
    >>> inverse_relative(jnp.float32([2.0, 0.0]), jnp.float32([2.5, 9.0]))
    Array([1., 0.], dtype=float32)

  Source: DST, equation 5 and table 1.
  """
  seed, proposed = _float32(seed), _float32(proposed)
  return jnp.abs(seed * (proposed - seed))


def relative(
  seed: Float[Array, '*s'], proposed: Float[Array, '*s']
) -> Float32[Array, '*s']:
  """Returns the relative distance.

  d = |(θ̂ − θ⁰) / θ⁰|. Table 1 leaves θ⁰ = 0 open; here |θ⁰| counts as at least
  2⁻⁸⁰, so that a zero that moves outranks ordinary parameters, zeros rank among
  themselves by how far they moved, and a zero that stays scores 0.

  Args:
    seed: θ⁰, any shape, floating.
    proposed: θ̂, same shape.

  Returns:
    The distance, float32, same shape.

  Example:
    >>> relative(jnp.float32([2.0, 4.0]), jnp.float32([3.0, 4.0]))
    Array([0.5, 0. ], dtype=float32)

  Source: DST, table 1.
  """
  seed, proposed = _float32(seed), _float32(proposed)
  scale = jnp.maximum(jnp.abs(seed), jnp.float32(ZERO_SEED))
  return jnp.abs(proposed - seed) / scale


def absolute(
  seed: Float[Array, '*s'], proposed: Float[Array, '*s']
) -> Float32[Array, '*s']:
  """Returns the absolute distance.

  d = |θ̂ − θ⁰|.

  Args:
    seed: θ⁰, any shape, floating.
    proposed: θ̂, same shape.

  Returns:
    The distance, float32, same shape.

  Example:
    >>> absolute(jnp.float32([2.0, 0.0]), jnp.float32([2.5, 9.0]))
    Array([0.5, 9. ], dtype=float32)

  Source: DST, table 1.
  """
  return jnp.abs(_float32(proposed) - _float32(seed))


def d3(
  params: Float[Array, '*s'],
  gradient: Float[Array, '*s'],
  *,
  offset: float,
  exponent: float,
) -> Float32[Array, '*s']:
  """Returns ID3's heuristic: large gradients, weighed by magnitude.

  H = |∇| / (|θ| + offset)^exponent. The paper calls the offset ε; here ε is
  the subset's fraction.

  Args:
    params: θ, any shape, floating.
    gradient: ∇, same shape.
    offset: positive smoothing constant.
    exponent: any finite number; negative ones favour large parameters.

  Returns:
    The heuristic, float32, same shape.

  Raises:
    ValueError: if the offset is not positive or the exponent not finite.

  Example:
    >>> d3(jnp.float32([1.0]), jnp.float32([-8.0]), offset=1.0, exponent=2.0)
    Array([2.], dtype=float32)

  Source: ID3, equation 1.
  """
  _check_d3(offset, exponent)
  base = jnp.abs(_float32(params)) + jnp.float32(offset)
  return jnp.abs(_float32(gradient)) / _power(base, exponent)


def small_magnitude(seed: Float[Array, '*s']) -> Float32[Array, '*s']:
  """Returns a score that ranks parameters by −|θ⁰|: small ones first.

  The bit patterns of non-negative floats are ordered like the floats, so
  counting a pattern down from the largest finite one reverses the order
  exactly: no two different magnitudes tie, and a zero scores highest.

  Args:
    seed: θ⁰, any shape, floating.

  Returns:
    The score, float32, same shape; NaN or inf where the seed is not finite.

  Example:
    >>> s = small_magnitude(jnp.float32([0.5, -0.25, 0.0]))
    >>> [int(i) for i in jnp.argsort(-s)]
    [2, 1, 0]

  Source: PaFi (Liao et al. 2023, section 3), as cited by ID3, section 4.3.
  """
  magnitude = jnp.abs(_float32(seed))
  bits = jax.lax.bitcast_convert_type(magnitude, jnp.int32)
  score = jax.lax.bitcast_convert_type(_LARGEST - bits, jnp.float32)
  return jnp.where(jnp.isfinite(magnitude), score, magnitude)


def uniform(noise: UInt32[Array, '*s']) -> Float32[Array, '*s']:
  """Returns random scores in uniformly random order.

  The noise picks one of two billion positive normal floats: enough that ties
  are rare, where uniform numbers in [0, 1) have only 2²³ values.

  Args:
    noise: uint32 random bits, any shape.

  Returns:
    Positive float32, same shape.

  Example:
    >>> bool(uniform(jnp.uint32([0, 4294967295])).min() > 0)
    True

  Source: the random baseline of DST, appendix A.
  """
  span = jnp.uint32(_LARGEST - _SMALLEST + 1)
  bits = jax.lax.rem(noise, jnp.full_like(noise, span))
  return jax.lax.bitcast_convert_type(bits + _SMALLEST, jnp.float32)


def path(eligible: Float32[Array, '*s']) -> Float32[Array, '*s']:
  """Returns 1 where the parameter's path was named, 0 elsewhere.

  Args:
    eligible: 1 or 0, one value for a whole tensor, any shape.

  Returns:
    The same array.

  Example:
    >>> path(jnp.float32([1.0, 1.0]))
    Array([1., 1.], dtype=float32)

  Source: BitFit (Ben-Zaken et al. 2022), which selects parameters by name.
  """
  return eligible


INVERSE_RELATIVE = Score(inverse_relative, ('seed', 'proposed'), recompute=True)
RELATIVE = Score(relative, ('seed', 'proposed'), recompute=True)
ABSOLUTE = Score(absolute, ('seed', 'proposed'), recompute=True)
SMALL_MAGNITUDE = Score(small_magnitude, ('seed',))
UNIFORM = Score(uniform, ('noise',))
PATH = Score(path, ('eligible',))

DISTANCES = {
  'inverse_relative': INVERSE_RELATIVE,
  'relative': RELATIVE,
  'absolute': ABSOLUTE,
}


def d3_score(*, offset: float, exponent: float) -> Score:
  """Returns ID3's heuristic as a `Score`; see `d3`.

  Args:
    offset: positive smoothing constant.
    exponent: any finite number.

  Returns:
    A score that reads the parameters and their gradient.

  Raises:
    ValueError: if the offset is not positive or the exponent not finite.

  Example:
    >>> d3_score(offset=1.0, exponent=2.0).reads
    ('params', 'gradient')
  """
  _check_d3(offset, exponent)
  fn = functools.partial(d3, offset=offset, exponent=exponent)
  return Score(fn, ('params', 'gradient'))


def _check_d3(offset: float, exponent: float) -> None:
  if not 0.0 < offset < float('inf'):
    raise ValueError(f'D3 offset must be positive and finite, not {offset!r}')
  if not abs(exponent) < float('inf'):
    raise ValueError(f'D3 exponent must be finite, not {exponent!r}')


def _float32(x: jax.Array) -> jax.Array:
  return jnp.asarray(x).astype(jnp.float32)


def _power(base: jax.Array, exponent: float) -> jax.Array:
  if exponent == int(exponent):
    return jax.lax.integer_pow(base, int(exponent))
  return jnp.power(base, jnp.float32(exponent))
