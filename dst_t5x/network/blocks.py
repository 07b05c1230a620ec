"""What a layer of the encoder and one of the decoder share.

Both add what a module makes of the normalised residual stream to that stream,
and both end in the feed-forward module.
"""

import flax.linen as nn
from jaxtyping import Array, Float

from dst_t5x.network import layers
from dst_t5x.network.network_config import NetworkConfig


def attention(config: NetworkConfig) -> layers.Attention:
  """Returns the attention module of a network.

  Args:
    config: sizes of the network.
  """
  return layers.Attention(
    config.num_heads,
    config.head_dim,
    config.emb_dim,
    config.dropout_rate,
    config.dtype,
  )


def dropout(config: NetworkConfig) -> nn.Dropout:
  """Returns dropout with one draw for all tokens of a row.

  Args:
    config: sizes of the network.
  """
  return nn.Dropout(config.dropout_rate, broadcast_dims=(-2,))


class Block(nn.Module):
  """A layer of either stack, without its attention modules.

  Attributes:
    config: sizes of the network.
  """

  config: NetworkConfig

  def setup(self) -> None:
    """Makes the feed-forward module and what stands around it."""
    config = self.config
    self.pre_mlp_layer_norm = layers.RMSNorm(config.dtype)
    self.mlp = layers.Mlp(
      config.mlp_dim,
      config.mlp_activations,
      config.dropout_rate,
      config.dtype,
    )
    self.dropout = dropout(config)

  def add(
    self,
    x: Float[Array, 'b l d'],
    y: Float[Array, 'b l d'],
    *,
    deterministic: bool,
  ) -> Float[Array, 'b l d']:
    """Returns the residual stream x with a module's output y added."""
    return x + self.dropout(y, deterministic=deterministic)

  def feed_forward(
    self, x: Float[Array, 'b l d'], *, deterministic: bool
  ) -> Float[Array, 'b l d']:
    """Returns the residual stream after the feed-forward module."""
    y = self.mlp(self.pre_mlp_layer_norm(x), deterministic=deterministic)
    return self.add(x, y, deterministic=deterministic)
