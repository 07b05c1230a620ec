"""Beam search with a length penalty, with T5X's rules.

At each step the 2K best continuations of the K live beams are taken. Those that
end compete, by log probability over length penalty, for the K places of the
finished sequences; the best K of the others live on. The search of a row is
over when no live beam can beat its worst finished sequence any more.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int, Int32

_WORST = -1e7  # of beams and places that hold nothing yet

# (tokens, position, caches, crosses, sources) → (logits, caches)
StepFn = Callable[..., tuple[jax.Array, Any]]


class _Beams(NamedTuple):
  position: Int32[Array, '']
  live: Int32[Array, 'b k t']
  live_scores: Float32[Array, 'b k']  # log probabilities
  finished: Int32[Array, 'b k t']
  finished_scores: Float32[Array, 'b k']  # penalised
  ended: Bool[Array, 'b k']  # places that hold a finished sequence
  caches: Any


def length_penalty(alpha: float, length: Any) -> jax.Array:
  """Returns what a sequence's log probability is divided by.

  ((5 + length) / 6)^alpha.

  Args:
    alpha: 0 for none.
    length: tokens (count), the end token included.

  Returns:
    The penalty.

  Example:
    >>> float(length_penalty(1.0, 7))
    2.0

  Source: Wu et al. 2016, equation 14, with T5X's constants.
  """
  return ((5.0 + jnp.asarray(length, jnp.float32)) / 6.0) ** alpha


def beam_search(
  step: StepFn,
  sources: Int[Array, 'b l'],
  caches: Any,
  crosses: Any,
  *,
  max_decode_len: int,
  beam_size: int,
  alpha: float,
  eos_id: int,
) -> tuple[Int32[Array, 'b t'], Float32[Array, ' b']]:
  """Returns the best sequence of each row, and its score.

  Where no sequence has ended in time, the best live beam is returned, with its
  unpenalised log probability.

  Args:
    step: one more token for every row, beams as rows.
    sources: input tokens; rows of zeros are padding and never keep the search
      going.
    caches: empty, for one beam.
    crosses: keys and values of the input, for one beam.
    max_decode_len: tokens at most (count).
    beam_size: K (count).
    alpha: exponent of the length penalty.
    eos_id: the end token.

  Returns:
    Tokens and scores.
  """
  rows = sources.shape[0]
  padding = jnp.all(sources == 0, axis=1)
  crosses = jax.tree.map(lambda x: jnp.repeat(x, beam_size, axis=0), crosses)
  caches = jax.tree.map(lambda x: jnp.repeat(x, beam_size, axis=0), caches)
  beam_sources = jnp.repeat(sources, beam_size, axis=0)
  # T5X counts the start token here.
  least_penalty = length_penalty(alpha, max_decode_len + 1)

  def go_on(state: _Beams) -> Array:
    best_live = jnp.max(state.live_scores, axis=1) / least_penalty
    worst = jnp.min(state.finished_scores, axis=1)
    over = jnp.all(state.ended, axis=1) & (worst > best_live)
    return (state.position < max_decode_len) & ~jnp.all(over | padding)

  def advance(state: _Beams) -> _Beams:
    i = state.position
    last = jnp.where(i > 0, state.live[:, :, jnp.maximum(i - 1, 0)], 0)
    logits, caches = step(
      last.reshape(-1), i, state.caches, crosses, beam_sources
    )
    size = logits.shape[-1]
    gains = jax.nn.log_softmax(logits).reshape(rows, beam_size, size)
    scores = state.live_scores[:, :, None] + gains
    top, index = jax.lax.top_k(scores.reshape(rows, -1), 2 * beam_size)
    parent, token = index // size, (index % size).astype(jnp.int32)
    sequences = _take(state.live, parent).at[:, :, i].set(token)
    ends = token == eos_id

    alive, keep = jax.lax.top_k(jnp.where(ends, top + _WORST, top), beam_size)
    kept_parent = _take(parent, keep)

    done = top / length_penalty(alpha, i + 1)
    done = jnp.where(ends, done, done + _WORST)
    all_scores = jnp.concatenate([state.finished_scores, done], axis=1)
    best, place = jax.lax.top_k(all_scores, beam_size)
    return _Beams(
      position=i + 1,
      live=_take(sequences, keep),
      live_scores=alive,
      finished=_take(
        jnp.concatenate([state.finished, sequences], axis=1), place
      ),
      finished_scores=best,
      ended=_take(jnp.concatenate([state.ended, ends], axis=1), place),
      caches=jax.tree.map(
        lambda x: _take(
          x.reshape(rows, beam_size, *x.shape[1:]), kept_parent
        ).reshape(x.shape),
        caches,
      ),
    )

  empty = jnp.zeros((rows, beam_size, max_decode_len), jnp.int32)
  worst = jnp.full((rows, beam_size), _WORST, jnp.float32)
  end = jax.lax.while_loop(
    go_on,
    advance,
    _Beams(
      position=jnp.int32(0),
      live=empty,
      # All beams start alike: only the first may be continued.
      live_scores=worst.at[:, 0].set(0.0),
      finished=empty,
      finished_scores=worst,
      ended=jnp.zeros((rows, beam_size), jnp.bool_),
      caches=caches,
    ),
  )
  any_ended = jnp.any(end.ended, axis=1)
  tokens = jnp.where(any_ended[:, None], end.finished[:, 0], end.live[:, 0])
  return tokens, jnp.where(
    any_ended, end.finished_scores[:, 0], end.live_scores[:, 0]
  )


def _take(x: Int[Array, 'b n ...'], index: Int[Array, 'b k']) -> Array:
  shape = (*index.shape, *(1,) * (x.ndim - 2))
  return jnp.take_along_axis(x, index.reshape(shape), axis=1)
