"""Text from a network: greedy decoding and beam search with a cache.

Both run in one `lax.while_loop` that ends as soon as no row can change any
more. Rows whose tokens are all 0 are padding and come back as zeros.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int, Int32

from dst_t5x.network.beam_search import beam_search
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.network.transformer import LayerCache, Transformer


class Decoded(NamedTuple):
  """What was decoded.

  Attributes:
    tokens: int32[batch, max_decode_len]; after the end token, 0.
    scores: float32[batch]; the log probability, with beams divided by the
      length penalty.
  """

  tokens: Int32[Array, 'b t']
  scores: Float32[Array, ' b']


class _Greedy(NamedTuple):
  position: Int32[Array, '']
  tokens: Int32[Array, 'b t']
  last: Int32[Array, ' b']
  scores: Float32[Array, ' b']
  ended: Bool[Array, ' b']
  caches: list[LayerCache]


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
  padding = jnp.all(encoder_input_tokens == 0, axis=1)

  def step(
    tokens: Array,
    position: Array,
    caches: list[LayerCache],
    crosses: list[LayerCache],
    sources: Array,
  ) -> tuple[Array, list[LayerCache]]:
    found: Any = network.apply(
      variables,
      tokens,
      position,
      caches,
      crosses,
      sources,
      method=Transformer.step,
    )
    return found

  if beam_size > 1:
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
    tokens = jnp.where(padding[:, None], 0, tokens)
    return Decoded(tokens, jnp.where(padding, 0.0, scores))

  def go_on(state: _Greedy) -> Array:
    return (state.position < max_decode_len) & ~jnp.all(state.ended)

  def advance(state: _Greedy) -> _Greedy:
    logits, caches = step(
      state.last, state.position, state.caches, crosses, encoder_input_tokens
    )
    best = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    gain = jnp.max(jax.nn.log_softmax(logits), axis=-1)
    token = jnp.where(state.ended, 0, best)
    return _Greedy(
      position=state.position + 1,
      tokens=state.tokens.at[:, state.position].set(token),
      last=token,
      scores=state.scores + jnp.where(state.ended, 0.0, gain),
      ended=state.ended | (token == eos_id),
      caches=caches,
    )

  end = jax.lax.while_loop(
    go_on,
    advance,
    _Greedy(
      position=jnp.int32(0),
      tokens=jnp.zeros((rows, max_decode_len), jnp.int32),
      last=jnp.zeros(rows, jnp.int32),
      scores=jnp.zeros(rows, jnp.float32),
      ended=padding,
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
    config: of the network; dropout is off.
    params: of the network.
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
