"""Text from a network: greedy decoding and beam search with a cache.

Both run in one `lax.while_loop` that ends as soon as no row can change any
more. Rows whose tokens are all 0 are padding and come back as zeros.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int, Int32

from dst_t5x.network.beam_search import beam_search
from dst_t5x.network.decoder_stack import LayerCache
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.network.transformer import Transformer


class Decoded(NamedTuple):
  """What was decoded.

  Attributes:
    tokens: int32[batch, max_decode_len]; after the end token, 0.
    scores: float32[batch]; the log probability, with beams divided by the
      length penalty.
  """

  tokens: Int32[Array, 'b t']
  scores: Float32[Array, ' b']


class _GreedyState(NamedTuple):
  position: Int32[Array, '']
  tokens: Int32[Array, 'b t']
  last: Int32[Array, ' b']
  scores: Float32[Array, ' b']
  ended: Bool[Array, ' b']
  caches: list[LayerCache]


# One more token of every row, its position, the caches so far, the encoder's
# keys and values, and the encoder's tokens → logits, and the longer caches.
StepFn = Callable[
  [Array, Array, list[LayerCache], list[LayerCache], Array],
  tuple[Array, list[LayerCache]],
]


@functools.partial(
  jax.jit,
  static_argnames=('config', 'max_decode_len', 'beam_size', 'alpha', 'eos_id'),
)
def _decode(
  config: NetworkConfig,
  params: Any,
  encoder_input_tokens: Int[Array, 'b l'],
  *,
  max_decode_len: int,
  beam_size: int,
  alpha: float,
  eos_id: int,
) -> Decoded:
  network = Transformer(config)
  variables = {'params': params}
  crosses: Any = network.apply(
    variables, encoder_input_tokens, method=Transformer.start
  )
  rows = encoder_input_tokens.shape[0]
  shape = (rows, max_decode_len, config.num_heads, config.head_dim)
  empty = jnp.zeros(shape, config.dtype)
  caches: list[LayerCache] = [(empty, empty) for _ in crosses]
  step: Any = functools.partial(
    network.apply, variables, method=Transformer.step
  )
  if beam_size == 1:
    return _greedy(
      step,
      encoder_input_tokens,
      caches,
      crosses,
      max_decode_len=max_decode_len,
      eos_id=eos_id,
    )
  tokens, scores = beam_search(
    step,
    encoder_input_tokens,
    caches,
    crosses,
    max_decode_len=max_decode_len,
    beam_size=beam_size,
    alpha=alpha,
    eos_id=eos_id,
  )
  padding = _padding(encoder_input_tokens)
  tokens = jnp.where(padding[:, None], 0, tokens)
  return Decoded(tokens, jnp.where(padding, 0.0, scores))


def _padding(tokens: Int[Array, 'b l']) -> Bool[Array, ' b']:
  return jnp.all(tokens == 0, axis=1)


def _greedy(
  step: StepFn,
  encoder_input_tokens: Int[Array, 'b l'],
  caches: list[LayerCache],
  crosses: list[LayerCache],
  *,
  max_decode_len: int,
  eos_id: int,
) -> Decoded:
  def go_on(state: _GreedyState) -> Array:
    return (state.position < max_decode_len) & ~jnp.all(state.ended)

  def advance(state: _GreedyState) -> _GreedyState:
    logits, caches = step(
      state.last, state.position, state.caches, crosses, encoder_input_tokens
    )
    best = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    gain = jnp.max(jax.nn.log_softmax(logits), axis=-1)
    token = jnp.where(state.ended, 0, best)
    return _GreedyState(
      position=state.position + 1,
      tokens=state.tokens.at[:, state.position].set(token),
      last=token,
      scores=state.scores + jnp.where(state.ended, 0.0, gain),
      ended=state.ended | (token == eos_id),
      caches=caches,
    )

  rows = encoder_input_tokens.shape[0]
  end = jax.lax.while_loop(
    go_on,
    advance,
    _GreedyState(
      position=jnp.int32(0),
      tokens=jnp.zeros((rows, max_decode_len), jnp.int32),
      last=jnp.zeros(rows, jnp.int32),
      scores=jnp.zeros(rows, jnp.float32),
      ended=_padding(encoder_input_tokens),
      caches=caches,
    ),
  )
  return Decoded(end.tokens, end.scores)


def decode(
  config: NetworkConfig,
  params: Any,
  encoder_input_tokens: Int[Array, 'b l'],
  *,
  max_decode_len: int,
  beam_size: int = 1,
  alpha: float = 0.6,
  eos_id: int = 1,
) -> Decoded:
  """Returns the decoded tokens of every row.

  Args:
    config: sizes of the network; dropout is off.
    params: parameters of the network, as a nested dict.
    encoder_input_tokens: int32[batch, length], 0 is padding.
    max_decode_len: tokens decoded at most (count), the end token included.
    beam_size: beams (count); 1 decodes greedily.
    alpha: exponent of the length penalty ((5 + length) / 6)^alpha, with beams.
    eos_id: the end token.

  Returns:
    Tokens and scores of the best sequence of each row.

  Raises:
    ValueError: if a count is below 1.
  """
  for name, value in (
    ('max_decode_len', max_decode_len), ('beam_size', beam_size),
  ):  # fmt: skip
    if value < 1:
      raise ValueError(f'{name}={value!r} must be >= 1')
  return _decode(
    config,
    params,
    jnp.asarray(encoder_input_tokens),
    max_decode_len=max_decode_len,
    beam_size=beam_size,
    alpha=alpha,
    eos_id=eos_id,
  )
