"""Sizes and settings of a T5 1.1 network."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from dst_t5x.arrays import known_names
from dst_t5x.arrays.counts import is_count

ACTIVATIONS = ('gelu', 'relu', 'silu', 'swish', 'linear')
# No float16: what masks attention, -1e10, is infinite in it, and a row of
# padding becomes NaN.
DTYPES = ('float32', 'bfloat16')


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
  """What a network looks like; names as in T5X.

  Attributes:
    vocab_size: rows of the embedding (count).
    emb_dim: width of the residual stream (count).
    num_heads: attention heads (count).
    num_encoder_layers: (count).
    num_decoder_layers: (count).
    head_dim: width of a head (count).
    mlp_dim: inner width of the feed-forward module (count).
    mlp_activations: one of two gates, multiplied: gated GELU in T5 1.1.
    dropout_rate: probability.
    logits_via_embedding: whether the output layer is the embedding.
    dtype: of the activations; parameters are float32.
  """

  vocab_size: int
  emb_dim: int
  num_heads: int
  num_encoder_layers: int
  num_decoder_layers: int
  head_dim: int
  mlp_dim: int
  mlp_activations: tuple[str, ...] = ('gelu', 'linear')
  dropout_rate: float = 0.0
  logits_via_embedding: bool = False
  dtype: str = 'float32'

  def __post_init__(self) -> None:
    """Raises ValueError if a value is out of its range."""
    object.__setattr__(self, 'mlp_activations', tuple(self.mlp_activations))
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.type is int and not is_count(value, least=1):
        raise ValueError(
          f'network {field.name}={value!r} must be a whole number >= 1'
        )
    if not 0.0 <= self.dropout_rate < 1.0:
      raise ValueError(f'dropout_rate={self.dropout_rate!r} must be in [0, 1)')
    unknown = set(self.mlp_activations) - set(ACTIVATIONS)
    if unknown or not self.mlp_activations:
      raise ValueError(
        f'mlp_activations={self.mlp_activations!r}: known are '
        + ', '.join(ACTIVATIONS)
      )
    if self.dtype not in DTYPES:
      raise ValueError(f'dtype={self.dtype!r}: known are {", ".join(DTYPES)}')

  def with_dropout(self, rate: float) -> Self:
    """Returns the same network with another dropout rate.

    Args:
      rate: probability.
    """
    return dataclasses.replace(self, dropout_rate=rate)

  def to_dict(self) -> dict[str, Any]:
    """Returns the values by name, in JSON-compatible types."""
    return {
      **dataclasses.asdict(self),
      'mlp_activations': list(self.mlp_activations),
    }

  @classmethod
  def from_dict(cls, values: Mapping[str, Any]) -> Self:
    """Returns the config with the given values.

    Args:
      values: by name, as `to_dict` returns them; those with a default may be
        left out.

    Returns:
      The config.

    Raises:
      ValueError: if a name is unknown or missing, or a value out of range.

    Example:
      >>> NetworkConfig.from_dict({'emb_dims': 8})
      Traceback (most recent call last):
      ...
      ValueError: unknown network setting 'emb_dims'; nearest: 'emb_dim'
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name in values:
      if name not in fields:
        raise ValueError(
          f'unknown network setting {name!r}{known_names.hint(name, fields)}'
        )
    missing = [
      name
      for name, field in fields.items()
      if name not in values and field.default is dataclasses.MISSING
    ]
    if missing:
      raise ValueError(f'the network lacks: {", ".join(missing)}')
    return cls(**values)
