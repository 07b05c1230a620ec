"""T5 1.1 in Flax, with exactly T5X's parameter tree.

  token_embedder/embedding
  encoder/layers_0/attention/query/kernel …
  encoder/relpos_bias/rel_embedding, encoder/encoder_norm/scale
  decoder/layers_0/{self_attention,encoder_decoder_attention,mlp}/…
  decoder/decoder_norm/scale, decoder/logits_dense/kernel

Callers use the functions at the end; decoding step by step is in `decoding`.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from dst_t5x.arrays.paths import flatten
from dst_t5x.network import layers
from dst_t5x.network.decoder_stack import Decoder, LayerCache
from dst_t5x.network.encoder_stack import Encoder
from dst_t5x.network.network_config import NetworkConfig

Batch = Mapping[str, Any]


class Embed(nn.Module):
  """The token embedding, which may also make the logits."""

  vocab_size: int
  emb_dim: int
  dtype: str

  def setup(self) -> None:
    """Makes the table."""
    self.embedding = self.param(
      'embedding',
      nn.initializers.normal(stddev=1.0),
      (self.vocab_size, self.emb_dim),
    )

  def __call__(self, tokens: Int[Array, 'b l']) -> Float[Array, 'b l d']:
    """Returns the embeddings of tokens."""
    # NumPy, as a seed has it, cannot be indexed with traced tokens.
    return jnp.asarray(self.embedding, self.dtype)[tokens]

  def attend(self, x: Float[Array, 'b l d']) -> Float32[Array, 'b l v']:
    """Returns the logits of tied embeddings."""
    x = x.astype(jnp.float32)
    return x @ self.embedding.T / jnp.sqrt(jnp.float32(self.emb_dim))


class Transformer(nn.Module):
  """Encoder and decoder over one embedding."""

  config: NetworkConfig

  def setup(self) -> None:
    """Makes the modules."""
    config = self.config
    self.token_embedder = Embed(config.vocab_size, config.emb_dim, config.dtype)
    self.encoder = Encoder(config)
    self.decoder = Decoder(config)

  def encode(
    self,
    tokens: Int[Array, 'b l'],
    segments: Int[Array, 'b l'] | None = None,
    *,
    deterministic: bool = True,
  ) -> Float[Array, 'b l d']:
    """Returns the encoded tokens; 0 is padding."""
    if segments is None:
      segments = (tokens > 0).astype(jnp.int32)
    return self.encoder(
      self.token_embedder(tokens), segments, deterministic=deterministic
    )

  def __call__(
    self, batch: Batch, *, deterministic: bool = True
  ) -> Float32[Array, 'b t v']:
    """Returns the logits of every target position; see `logits`."""
    sources = batch['encoder_input_tokens']
    targets = batch['decoder_target_tokens']
    source_segments = batch.get('encoder_segment_ids')
    target_segments = batch.get('decoder_segment_ids')
    if source_segments is None:
      source_segments = (sources > 0).astype(jnp.int32)
    if target_segments is None:
      target_segments = (targets > 0).astype(jnp.int32)
    encoded = self.encode(sources, source_segments, deterministic=deterministic)
    y = self.decoder(
      self.token_embedder(batch['decoder_input_tokens']),
      encoded,
      target_segments,
      source_segments,
      deterministic=deterministic,
    )
    return self.to_logits(y)

  def start(self, tokens: Int[Array, 'b k']) -> list[LayerCache]:
    """Returns the decoder's keys and values of encoded tokens."""
    return self.decoder.cross_caches(self.encode(tokens))

  def step(
    self,
    tokens: Int[Array, ' b'],
    position: Int[Array, ''],
    caches: list[LayerCache],
    crosses: list[LayerCache],
    sources: Int[Array, 'b k'],
  ) -> tuple[Float32[Array, 'b v'], list[LayerCache]]:
    """Returns the logits after one more token, and the longer caches."""
    cross_bias = layers.bias_of(sources > 0)[:, None, None, :]
    y, caches = self.decoder.step(
      self.token_embedder(tokens[:, None]),
      position,
      caches,
      crosses,
      cross_bias,
    )
    return self.to_logits(y)[:, 0], caches

  def to_logits(self, y: Float[Array, 'b t d']) -> Float32[Array, 'b t v']:
    """Returns the logits of the decoder's output."""
    if self.config.logits_via_embedding:
      return self.token_embedder.attend(y)
    return self.decoder.logits_dense(y)


def init_params(config: NetworkConfig, key: jax.Array) -> dict[str, Any]:
  """Returns randomly initialised parameters.

  Args:
    config: sizes of the network.
    key: PRNG key.

  Returns:
    Nested dict of float32 arrays.

  Example:
    >>> config = NetworkConfig(8, 4, 1, 1, 1, 4, 8)
    >>> params = init_params(config, jax.random.key(0))
    >>> params['encoder']['layers_0']['mlp']['wo']['kernel'].shape
    (8, 4)
  """
  one = jnp.ones((1, 1), jnp.int32)
  batch = {
    'encoder_input_tokens': one,
    'decoder_input_tokens': one,
    'decoder_target_tokens': one,
  }
  return dict(Transformer(config).init(key, batch)['params'])


def param_shapes(config: NetworkConfig) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns shape and dtype of every parameter, by path, without making any.

  Args:
    config: sizes of the network.

  Returns:
    Shapes by path.

  Example:
    >>> shapes = param_shapes(NetworkConfig(8, 4, 1, 1, 1, 4, 8))
    >>> shapes['decoder/logits_dense/kernel'].shape
    (4, 8)
  """
  return flatten(jax.eval_shape(lambda: init_params(config, jax.random.key(0))))


def logits(
  config: NetworkConfig,
  params: Any,
  batch: Batch,
  *,
  dropout_key: jax.Array | None = None,
) -> Float32[Array, 'b t v']:
  """Returns the logits of every target position.

  Args:
    config: sizes of the network.
    params: parameters of the network, as a nested dict.
    batch: int32 encoder_input_tokens, decoder_input_tokens and
      decoder_target_tokens; if packed also encoder_segment_ids and
      decoder_segment_ids. 0 is padding.
    dropout_key: None for no dropout.

  Returns:
    float32[batch, targets length, vocabulary].
  """
  rngs = {} if dropout_key is None else {'dropout': dropout_key}
  return Transformer(config).apply(
    {'params': params}, batch, deterministic=dropout_key is None, rngs=rngs
  )  # type: ignore[return-value]
