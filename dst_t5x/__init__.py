"""Dynamic subset tuning for T5-family models.

  import dst_t5x as dst
  tx = dst.selective_tuning(optax.adamw(1e-3), dst.methods.dst(), epsilon=1e-4)
  change = dst.delta.diff(seed, tuned)
  dst.delta.write(change, 'delta.safetensors')

Every name below is loaded when it is first used, so that importing the package
costs nothing. The runner is `dst_t5x.standalone`, what T5X calls is
`dst_t5x.hooks`; the README beside this file has the map of all rooms.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from dst_t5x import delta, seeds
  from dst_t5x.core import methods, rates, silos, thresholds
  from dst_t5x.core.counting import Partitioning
  from dst_t5x.core.methods import Method
  from dst_t5x.core.optax_api import selective_tuning
  from dst_t5x.core.plans import Plan
  from dst_t5x.core.plans import make as make_plan
  from dst_t5x.core.selective import (
    NonFiniteScoreError,
    SelectiveState,
    raise_if_invalid,
  )
  from dst_t5x.core.silos import SiloError
  from dst_t5x.delta.types import DeltaError
  from dst_t5x.seeds.errors import SeedError

__all__ = [
  'DeltaError',
  'Method',
  'NonFiniteScoreError',
  'Partitioning',
  'Plan',
  'SeedError',
  'SelectiveState',
  'SiloError',
  'delta',
  'make_plan',
  'methods',
  'raise_if_invalid',
  'rates',
  'seeds',
  'selective_tuning',
  'silos',
  'thresholds',
]

# Where each public name lives: a module, or a module and a name in it.
_HOMES = {
  'DeltaError': 'dst_t5x.delta.types:DeltaError',
  'Method': 'dst_t5x.core.methods:Method',
  'NonFiniteScoreError': 'dst_t5x.core.selective:NonFiniteScoreError',
  'Partitioning': 'dst_t5x.core.counting:Partitioning',
  'Plan': 'dst_t5x.core.plans:Plan',
  'SeedError': 'dst_t5x.seeds.errors:SeedError',
  'SelectiveState': 'dst_t5x.core.selective:SelectiveState',
  'SiloError': 'dst_t5x.core.silos:SiloError',
  'delta': 'dst_t5x.delta',
  'make_plan': 'dst_t5x.core.plans:make',
  'methods': 'dst_t5x.core.methods',
  'raise_if_invalid': 'dst_t5x.core.selective:raise_if_invalid',
  'rates': 'dst_t5x.core.rates',
  'seeds': 'dst_t5x.seeds',
  'selective_tuning': 'dst_t5x.core.optax_api:selective_tuning',
  'silos': 'dst_t5x.core.silos',
  'thresholds': 'dst_t5x.core.thresholds',
}


def __getattr__(name: str) -> Any:
  """Loads a public name at its first use."""
  if name not in _HOMES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module, _, attribute = _HOMES[name].partition(':')
  value: Any = importlib.import_module(module)
  if attribute:
    value = getattr(value, attribute)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  """Returns the public names, loaded or not."""
  return sorted({*globals(), *__all__})
