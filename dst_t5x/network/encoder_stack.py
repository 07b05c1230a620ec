"""The encoder: its layers and the stack of them."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dst_t5x.network import layers
from dst_t5x.network.blocks import Block, attention, dropout
from dst_t5x.network.network_config import NetworkConfig


class EncoderLayer(Block):
  """Self-attention and feed-forward, each added to the residual stream."""

  def setup(self) -> None:
    """Makes the modules."""
    super().setup()
    self.pre_attention_layer_norm = layers.RMSNorm(self.config.dtype)
    self.attention = attention(self.config)

  def __call__(
    self,
    x: Float[Array, 'b l d'],
    bias: Float[Array, '...'],
    *,
    deterministic: bool,
  ) -> Float[Array, 'b l d']:
    """Returns the new residual stream."""
    y = self.pre_attention_layer_norm(x)
    y = self.attention(y, y, bias, deterministic=deterministic)
    x = self.add(x, y, deterministic=deterministic)
    return self.feed_forward(x, deterministic=deterministic)


class Encoder(nn.Module):
  """The encoder's stack."""

  config: NetworkConfig

  def setup(self) -> None:
    """Makes the modules."""
    config = self.config
    self.relpos_bias = layers.RelativePositionBias(
      config.num_heads, bidirectional=True, dtype=config.dtype
    )
    self.layers = [
      EncoderLayer(config) for _ in range(config.num_encoder_layers)
    ]
    self.encoder_norm = layers.RMSNorm(config.dtype)
    self.dropout = dropout(config)
    self.last_dropout = nn.Dropout(config.dropout_rate)

  def __call__(
    self,
    x: Float[Array, 'b l d'],
    segments: Int[Array, 'b l'],
    *,
    deterministic: bool,
  ) -> Float[Array, 'b l d']:
    """Returns the encoded tokens, from their embeddings."""
    positions = jnp.arange(x.shape[1])
    bias = layers.mask_bias(segments, segments) + self.relpos_bias(
      positions, positions
    )
    x = self.dropout(x, deterministic=deterministic).astype(self.config.dtype)
    for layer in self.layers:
      x = layer(x, bias, deterministic=deterministic)
    x = self.encoder_norm(x)
    return self.last_dropout(x, deterministic=deterministic)
