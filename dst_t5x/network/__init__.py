"""T5 1.1: the network, its loss, and decoding. Parameter names are T5X's.

Every function takes a `NetworkConfig` and, where it needs them, parameters as
the nested dict that T5X's checkpoints hold.
"""

import importlib
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
  """Loads a public name at its first use."""
  if name not in _HOMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module = importlib.import_module(f'{__name__}.{_HOMES[name]}')
  value: Any = getattr(module, name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  """Returns the public names, loaded or not."""
  return sorted({*globals(), *__all__})
