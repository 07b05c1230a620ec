"""The macros of `gin/models/`, and the network that they describe."""

from collections.abc import Mapping
from typing import Any

from dst_t5x.network.network_config import NetworkConfig

# Macro → field of `NetworkConfig`. The names of the macros are T5X's.
SIZE_MACROS: Mapping[str, str] = {
  'VOCAB_SIZE': 'vocab_size',
  'EMB_DIM': 'emb_dim',
  'NUM_HEADS': 'num_heads',
  'NUM_ENCODER_LAYERS': 'num_encoder_layers',
  'NUM_DECODER_LAYERS': 'num_decoder_layers',
  'HEAD_DIM': 'head_dim',
  'MLP_DIM': 'mlp_dim',
  'MLP_ACTIVATIONS': 'mlp_activations',
  'LOGITS_VIA_EMBEDDING': 'logits_via_embedding',
}


def network_from_macros(values: Mapping[str, Any]) -> NetworkConfig:
  """Returns the network whose sizes gin macros give.

  Args:
    values: value of every macro in `SIZE_MACROS`; other macros are ignored.

  Returns:
    The config, with the defaults of what no macro gives.

  Raises:
    ValueError: names the macros that are missing, or the size that is out of
      its range.

  Example:
    >>> sizes = dict.fromkeys(SIZE_MACROS, 8)
    >>> sizes |= {'MLP_ACTIVATIONS': ['relu'], 'LOGITS_VIA_EMBEDDING': True}
    >>> network_from_macros(sizes).mlp_activations
    ('relu',)
  """
  missing = [macro for macro in SIZE_MACROS if macro not in values]
  if missing:
    raise ValueError(
      f'the network is incomplete: {", ".join(missing)} not bound; the files '
      'in models/ bind all sizes'
    )
  return NetworkConfig.from_dict(
    {field: values[macro] for macro, field in SIZE_MACROS.items()}
  )
