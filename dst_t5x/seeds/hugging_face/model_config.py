"""Translates Hugging Face's config.json of a T5 from and to our configuration.

In config.json `tie_word_embeddings` means two things: that the output layer is
the embedding, and that the decoder's output is scaled by d_model**-0.5 before
it. In newer files `scale_decoder_outputs` means the second, and the output
layer is the embedding if the weights lack one.
"""

from collections.abc import Mapping
from typing import Any

from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.seeds.errors import SeedError
from dst_t5x.seeds.hugging_face.tensor_names import NUM_BUCKETS

# Key of config.json → field of our configuration.
_SIZES = {
  'vocab_size': 'vocab_size',
  'd_model': 'emb_dim',
  'num_heads': 'num_heads',
  'num_layers': 'num_encoder_layers',
  'd_kv': 'head_dim',
  'd_ff': 'mlp_dim',
}
_FIXED = {
  'relative_attention_num_buckets': NUM_BUCKETS,
  'relative_attention_max_distance': 128,
  'layer_norm_epsilon': 1e-6,
}
# Hugging Face → ours. Its plain 'gelu' is exact and ours an approximation.
_ACTIVATIONS = {
  'gated-gelu': ('gelu', 'linear'),
  'gated-silu': ('silu', 'linear'),
  'gated-relu': ('relu', 'linear'),
  'relu': ('relu',),
  'silu': ('silu',),
}
_MODEL_TYPES = ('t5', 'mt5')


def scaled(config: Mapping[str, Any]) -> bool:
  """Returns whether the decoder's output is scaled before the output layer.

  Args:
    config: content of config.json.

  Returns:
    Whether it is.

  Example:
    >>> scaled({}), scaled({'tie_word_embeddings': False})
    (True, False)
  """
  if config.get('model_type') == 'mt5':
    return False
  tied = config.get('tie_word_embeddings') is not False
  return bool(config.get('scale_decoder_outputs', tied))


def to_network(
  config: Mapping[str, Any], *, tied: bool, location: str
) -> NetworkConfig:
  """Returns our configuration of the network that config.json describes.

  Args:
    config: content of config.json.
    tied: whether the output layer is the embedding.
    location: location of the seed, for errors.

  Returns:
    The configuration.

  Raises:
    SeedError: if the network is none of T5 1.1, FLAN-T5 and mT5.

  Example:
    >>> sizes = {'vocab_size': 8, 'd_model': 4, 'd_kv': 4, 'd_ff': 8}
    >>> config = {'model_type': 't5', 'num_heads': 1, 'num_layers': 2, **sizes}
    >>> to_network(config, tied=True, location='here').mlp_activations
    ('relu',)
  """

  def refuse(why: str) -> SeedError:
    return SeedError(f'{location}/config.json: {why}')

  kind = config.get('model_type')
  if kind not in _MODEL_TYPES:
    raise refuse(
      f'model_type is {kind!r}; what works: {", ".join(_MODEL_TYPES)}'
    )
  for name, wanted in _FIXED.items():
    if config.get(name, wanted) != wanted:
      raise refuse(f'{name} is {config[name]!r}; the network has {wanted}')
  projection = config.get('feed_forward_proj', 'relu')
  if projection not in _ACTIVATIONS:
    raise refuse(
      f'feed_forward_proj is {projection!r}; what works: '
      + ', '.join(_ACTIVATIONS)
    )
  missing = [name for name in _SIZES if config.get(name) is None]
  if missing:
    raise refuse(f'lacks {", ".join(missing)}')
  values = {field: config[key] for key, field in _SIZES.items()}
  layers = config.get('num_decoder_layers')
  try:
    return NetworkConfig(
      **values,
      num_decoder_layers=config['num_layers'] if layers is None else layers,
      mlp_activations=_ACTIVATIONS[projection],
      dropout_rate=float(config.get('dropout_rate', 0.1)),
      logits_via_embedding=tied,
    )
  except (TypeError, ValueError) as error:
    raise refuse(str(error)) from error


def from_network(config: NetworkConfig, dtype: str) -> dict[str, Any]:
  """Returns the content of config.json for a network.

  Args:
    config: configuration of the network.
    dtype: name of the dtype of the parameters.

  Returns:
    The content (JSON types).

  Raises:
    SeedError: if Hugging Face has no name for the network's activations.

  Example:
    >>> content = from_network(NetworkConfig(8, 4, 1, 1, 1, 4, 8), 'float32')
    >>> content['feed_forward_proj'], content['tie_word_embeddings']
    ('gated-gelu', False)
  """
  names = {gates: name for name, gates in _ACTIVATIONS.items()}
  activations = tuple(
    'silu' if name == 'swish' else name for name in config.mlp_activations
  )
  if activations not in names:
    raise SeedError(
      f'mlp_activations {config.mlp_activations!r} have no name in the Hugging '
      f'Face layout; what works: {", ".join(map(repr, names))}'
    )
  tied = config.logits_via_embedding
  return {
    'architectures': ['T5ForConditionalGeneration'],
    'model_type': 't5',
    **{key: getattr(config, field) for key, field in _SIZES.items()},
    'num_decoder_layers': config.num_decoder_layers,
    **_FIXED,
    'feed_forward_proj': names[activations],
    'dropout_rate': config.dropout_rate,
    'tie_word_embeddings': tied,
    'scale_decoder_outputs': tied,
    'is_encoder_decoder': True,
    'pad_token_id': 0,
    'eos_token_id': 1,
    'decoder_start_token_id': 0,
    'dtype': dtype,
    'torch_dtype': dtype,
  }
