"""Scores: hand-worked values, orders, and the edges of float32."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dst_t5x.core import scores
from tests import reference

FLOATS = hnp.arrays(
  np.float32, 8, elements=st.floats(-(2**40), 2**40, width=32)
)
NORMAL = FLOATS.map(
  lambda x: np.where(np.abs(x) < np.finfo(np.float32).tiny, np.float32(0), x)
)


# Table 1 of the DST paper, by hand: seed, proposed, distance.
@pytest.mark.parametrize(
  'distance, rows',
  [
    (
      'inverse_relative',
      [(2, 2.5, 1), (-2, 2, 8), (-3, -3, 0), (0, 9, 0), (0.5, 0, 0.25)],
    ),
    (
      'relative',
      [(2, 3, 0.5), (-2, 2, 2), (-3, -3, 0), (0, 0, 0), (0, 3, 3 * 2.0**80)],
    ),
    (
      'absolute',
      [(2, 2.5, 0.5), (-2, 2, 4), (-3, -3, 0), (0, -9, 9), (0, 0, 0)],
    ),
  ],
)
def test_distances(distance, rows):
  seed, proposed, wanted = jnp.asarray(rows, jnp.float32).T
  score = scores.DISTANCES[distance]
  assert score.reads == ('seed', 'proposed') and score.recompute
  np.testing.assert_array_equal(score.fn(seed, proposed), wanted)


@pytest.mark.parametrize('distance', scores.DISTANCES)
@hypothesis.given(NORMAL, NORMAL)
def test_distances_are_the_references_bits(distance, seed, proposed):
  got = scores.DISTANCES[distance].fn(jnp.asarray(seed), jnp.asarray(proposed))
  wanted = reference.DISTANCES[distance](seed, proposed)
  tiny = np.finfo(np.float32).tiny  # XLA flushes what is smaller, on a CPU
  wanted = np.where(wanted < tiny, np.float32(0), wanted)
  np.testing.assert_array_equal(np.where(got < tiny, 0, got), wanted)


def test_a_zero_that_moves_outranks_the_rest_and_stays_finite():
  seed = jnp.float32([0, -0.0, 1e-40, 1e-6, 1])
  moved = scores.relative(seed, jnp.float32([1e-3, 2e-3, 1e-3, 1, 1e6]))
  assert np.isfinite(moved).all()
  # 10⁻⁴⁰ counts as zero; among zeros the larger move is first.
  assert moved[1] > moved[0] == moved[2] > moved[4] >= moved[3]
  assert scores.relative(seed, seed).tolist() == [0] * 5


@pytest.mark.parametrize(
  'theta, gradient, offset, exponent, wanted',
  [
    (1, -8, 1.0, 2.0, 2),
    (-3, 8, 1.0, 2.0, 0.5),
    (3, 8, 1.0, 0.0, 8),  # the generation setting: the gradient alone
    (3, 8, 1.0, -1.0, 32),
    (0, 4, 0.25, 1.0, 16),
    (5, 0, 1.0, 2.0, 0),
    (3, 8, 1.0, 0.5, 4),
  ],
)
def test_d3(theta, gradient, offset, exponent, wanted):
  score = scores.d3_score(offset=offset, exponent=exponent)
  got = score.fn(jnp.float32(theta), jnp.float32(gradient))
  np.testing.assert_allclose(got, np.float32(wanted), rtol=1e-6)


@pytest.mark.parametrize(
  'offset, exponent, named',
  [
    (0.0, 2.0, 'offset'),
    (-1.0, 2.0, 'offset'),
    (float('nan'), 2.0, 'offset'),
    (float('inf'), 2.0, 'offset'),
    (1.0, float('nan'), 'exponent'),
    (1.0, float('inf'), 'exponent'),
  ],
)
def test_d3_refuses_senseless_settings(offset, exponent, named):
  with pytest.raises(ValueError, match=named):
    scores.d3_score(offset=offset, exponent=exponent)


@hypothesis.given(hnp.arrays(np.float32, 12, elements=st.floats(width=32)))
def test_small_magnitude_reverses_the_order_exactly(seed):
  got = np.asarray(scores.small_magnitude(jnp.asarray(seed)))
  finite = np.isfinite(seed)
  np.testing.assert_array_equal(np.isfinite(got), finite)
  magnitude, got = np.abs(seed[finite]), got[finite]
  a, b = np.argsort(magnitude, kind='stable'), np.argsort(-got, kind='stable')
  # Compared as whole numbers: NumPy and XLA treat denormals differently.
  np.testing.assert_array_equal(
    magnitude.view(np.uint32)[a], magnitude.view(np.uint32)[b]
  )
  for i in range(1, magnitude.size):
    same = magnitude.view(np.uint32)[i] == magnitude.view(np.uint32)[0]
    assert same == (got.view(np.uint32)[i] == got.view(np.uint32)[0])


def test_uniform_is_positive_normal_and_nearly_free_of_ties():
  noise = jax.random.bits(jax.random.key(0), (100_000,), jnp.uint32)
  ends = jnp.uint32([0, 2**32 - 1, 2**31, 2**31 - 1])
  got = np.asarray(scores.uniform(jnp.concatenate([noise, ends])))
  assert np.isfinite(got).all() and (got >= np.finfo(np.float32).tiny).all()
  assert np.unique(got).size > got.size - 20  # expected: 2.3 pairs


@pytest.mark.parametrize('bad', [np.nan, np.inf])
@pytest.mark.parametrize('distance', scores.DISTANCES)
def test_what_is_not_finite_stays_so(distance, bad):
  # Also at a seed of 0, where a product might hide it.
  seed = jnp.float32([0.0, 1.0])
  got = scores.DISTANCES[distance].fn(seed, jnp.full(2, bad, jnp.float32))
  assert not np.isfinite(got).any()


@pytest.mark.parametrize('distance', scores.DISTANCES)
def test_bfloat16_is_scored_in_float32(distance):
  seed = jnp.asarray([1.5, -0.25], jnp.bfloat16)
  proposed = jnp.asarray([1.25, 0.125], jnp.bfloat16)
  fn = scores.DISTANCES[distance].fn
  got = fn(seed, proposed)
  assert got.dtype == jnp.float32
  wanted = fn(seed.astype(jnp.float32), proposed.astype(jnp.float32))
  np.testing.assert_array_equal(got, wanted)
