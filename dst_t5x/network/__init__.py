"""T5 1.1: the network, its loss, and decoding. Parameter names are T5X's.

Every function takes a `NetworkConfig` and, where it needs them, parameters as
the nested dict that T5X's checkpoints hold.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from dst_t5x.network.decoding import decode
  from dst_t5x.network.network_config import NetworkConfig
  from dst_t5x.network.token_loss import loss
  from dst_t5x.network.transformer import init_params, logits, param_shapes

__all__ = [
  'NetworkConfig',
  'decode',
  'init_params',
  'logits',
  'loss',
  'param_shapes',
]

# Flax takes a while to import, and a config does not need it.
_MODULES = {
  'NetworkConfig': 'network_config',
  'decode': 'decoding',
  'init_params': 'transformer',
  'logits': 'transformer',
  'loss': 'token_loss',
  'param_shapes': 'transformer',
}


def __getattr__(name: str) -> Any:
  if name not in _MODULES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module = importlib.import_module(f'{__name__}.{_MODULES[name]}')
  return getattr(module, name)
