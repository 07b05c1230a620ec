"""What a run changed: counts of changed parameters, and plots."""

from typing import TYPE_CHECKING

from dst_t5x.arrays import late_names

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

__getattr__, __dir__ = late_names.load_late(__name__, _HOMES)
