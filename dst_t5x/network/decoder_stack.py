"""The decoder: its layers, the stack of them, and what they cache.

While text is decoded, a layer takes one position at a time: it caches the keys
and values of the positions before, and those of the encoder's output.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dst_t5x.network import layers
from dst_t5x.network.blocks import Block, attention, dropout
from dst_t5x.network.network_config import NetworkConfig

# Keys and values of one layer's attention, each [b, length, h, e].
LayerCache = tuple[jax.Array, jax.Array]


class DecoderLayer(Block):
  """Self-attention, attention over the encoder, and feed-forward."""

  def setup(self) -> None:
    """Makes the modules."""
    super().setup()
    self.pre_self_attention_layer_norm = layers.RMSNorm(self.config.dtype)
    self.self_attention = attention(self.config)
    self.pre_cross_attention_layer_norm = layers.RMSNorm(self.config.dtype)
    self.encoder_decoder_attention = attention(self.config)

  def __call__(
    self,
    x: Float[Array, 'b l d'],
    encoded: Float[Array, 'b k d'],
    self_bias: Float[Array, '...'],
    cross_bias: Float[Array, '...'],
    *,
    deterministic: bool,
  ) -> Float[Array, 'b l d']:
    """Returns the new residual stream."""
    y = self.pre_self_attention_layer_norm(x)
    y = self.self_attention(y, y, self_bias, deterministic=deterministic)
    x = self.add(x, y, deterministic=deterministic)
    y = self.pre_cross_attention_layer_norm(x)
    y = self.encoder_decoder_attention(
      y, encoded, cross_bias, deterministic=deterministic
    )
    x = self.add(x, y, deterministic=deterministic)
    return self.feed_forward(x, deterministic=deterministic)

  def cross_cache(self, encoded: Float[Array, 'b k d']) -> LayerCache:
    """Returns keys and values of the encoder's output."""
    return self.encoder_decoder_attention.keys_values(encoded)

  def step(
    self,
    x: Float[Array, 'b 1 d'],
    position: Int[Array, ''],
    cache: LayerCache,
    cross: LayerCache,
    self_bias: Float[Array, '...'],
    cross_bias: Float[Array, '...'],
  ) -> tuple[Float[Array, 'b 1 d'], LayerCache]:
    """Returns the residual stream of one position, and the longer cache."""
    y = self.pre_self_attention_layer_norm(x)
    keys, values = self.self_attention.keys_values(y)
    keys, values = (
      jax.lax.dynamic_update_slice_in_dim(old, new, position, axis=1)
      for old, new in zip(cache, (keys, values), strict=True)
    )
    x = x + self.self_attention.attend(y, keys, values, self_bias)
    y = self.pre_cross_attention_layer_norm(x)
    x = x + self.encoder_decoder_attention.attend(y, *cross, cross_bias)
    return self.feed_forward(x, deterministic=True), (keys, values)


class Decoder(nn.Module):
  """The decoder's stack; its output is normalised, not yet logits."""

  config: NetworkConfig

  def setup(self) -> None:
    """Makes the modules."""
    config = self.config
    self.relpos_bias = layers.RelativePositionBias(
      config.num_heads, bidirectional=False, dtype=config.dtype
    )
    self.layers = [
      DecoderLayer(config) for _ in range(config.num_decoder_layers)
    ]
    self.decoder_norm = layers.RMSNorm(config.dtype)
    self.dropout = dropout(config)
    if not config.logits_via_embedding:
      self.logits_dense = layers.Dense(config.vocab_size, 'float32')

  def __call__(
    self,
    x: Float[Array, 'b l d'],
    encoded: Float[Array, 'b k d'],
    segments: Int[Array, 'b l'],
    encoder_segments: Int[Array, 'b k'],
    *,
    deterministic: bool,
  ) -> Float[Array, 'b l d']:
    """Returns the decoder's output, from the embeddings of its input."""
    positions = jnp.arange(x.shape[1])
    causal = layers.bias_of(positions[None, :] <= positions[:, None])
    self_bias = jnp.minimum(
      layers.mask_bias(segments, segments), causal
    ) + self.relpos_bias(positions, positions)
    cross_bias = layers.mask_bias(segments, encoder_segments)
    x = self.dropout(x, deterministic=deterministic).astype(self.config.dtype)
    for layer in self.layers:
      x = layer(x, encoded, self_bias, cross_bias, deterministic=deterministic)
    return self.dropout(self.decoder_norm(x), deterministic=deterministic)

  def cross_caches(self, encoded: Float[Array, 'b k d']) -> list[LayerCache]:
    """Returns every layer's keys and values of the encoder's output."""
    return [layer.cross_cache(encoded) for layer in self.layers]

  def step(
    self,
    x: Float[Array, 'b 1 d'],
    position: Int[Array, ''],
    caches: list[LayerCache],
    crosses: list[LayerCache],
    cross_bias: Float[Array, 'b 1 1 k'],
  ) -> tuple[Float[Array, 'b 1 d'], list[LayerCache]]:
    """Returns the output of one position, and the longer caches."""
    keys = jnp.arange(caches[0][0].shape[1])
    self_bias = layers.bias_of(keys <= position) + self.relpos_bias(
      position[None], keys
    )
    x = x.astype(self.config.dtype)
    new = []
    for layer, cache, cross in zip(self.layers, caches, crosses, strict=True):
      x, cache = layer.step(x, position, cache, cross, self_bias, cross_bias)
      new.append(cache)
    return self.decoder_norm(x), new
