"""Back to the seed, bit for bit."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def reset(
  selected: Bool[Array, '*s'],
  proposed: Float[Array, '*s'],
  seed: Float[Array, '*s'],
) -> Float[Array, '*s']:
  """Returns the proposed value inside the subset and the seed outside it.

  θ = θ̂ if selected else θ⁰. A selection, never arithmetic: `p + (s - p)` is
  not `s` when p and s differ by more than a factor of two.

  Args:
    selected: True inside the subset, any shape.
    proposed: θ̂, same shape.
    seed: θ⁰, same shape and dtype as `proposed`.

  Returns:
    θ, in the seed's dtype.

  Raises:
    TypeError: if proposed and seed differ in dtype.

  Example:
    >>> reset(jnp.array([True, False]), jnp.ones(2), jnp.zeros(2))
    Array([1., 0.], dtype=float32)

  Source: DST, equation 7.
  """
  if proposed.dtype != seed.dtype:
    raise TypeError(
      f'proposed values are {proposed.dtype}, the seed is {seed.dtype}'
    )
  return jnp.where(selected, proposed, seed)
