"""T5 1.1: the network, its loss, and decoding. Parameter names are T5X's.

Every function takes a `NetworkConfig` and, where it needs them, parameters as
the nested dict that T5X's checkpoints hold.
"""

from typing import TYPE_CHECKING

from dst_t5x.arrays import late_names

if TYPE_CHECKING:
  from dst_t5x.network.decoding import Decoded, decode
  from dst_t5x.network.network_config import NetworkConfig
  from dst_t5x.network.token_loss import LossMetrics, loss
  from dst_t5x.network.transformer import init_params, logits, param_shapes

__all__ = [
  'Decoded',
  'LossMetrics',
  'NetworkConfig',
  'decode',
  'init_params',
  'logits',
  'loss',
  'param_shapes',
]

# The module of each name. Flax is slow to import, and a config does without.
_HOMES = {
  'Decoded': 'decoding',
  'LossMetrics': 'token_loss',
  'NetworkConfig': 'network_config',
  'decode': 'decoding',
  'init_params': 'transformer',
  'logits': 'transformer',
  'loss': 'token_loss',
  'param_shapes': 'transformer',
}

__getattr__, __dir__ = late_names.load_late(__name__, _HOMES)
