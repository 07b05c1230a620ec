"""What a run changed: counts of changed parameters, and plots."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from dst_t5x.analysis.changes import (
    Changes,
    changed_positions,
    count_changes,
    share_per_module,
  )
  from dst_t5x.analysis.plots import (
    churn,
    learning_curve,
    module_shares,
    overlaps,
  )

__all__ = [
  'Changes',
  'changed_positions',
  'churn',
  'count_changes',
  'learning_curve',
  'module_shares',
  'overlaps',
  'share_per_module',
]

# The module of each name. Matplotlib is slow to import; counting does without.
_HOMES = {
  'Changes': 'changes',
  'changed_positions': 'changes',
  'churn': 'plots',
  'count_changes': 'changes',
  'learning_curve': 'plots',
  'module_shares': 'plots',
  'overlaps': 'plots',
  'share_per_module': 'changes',
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
