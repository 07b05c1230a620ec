"""What T5X logs about the model, and writes to model-info.txt.

T5X describes the state that its checkpoint manager saves. Here that is a delta,
so once the manager has it and the run has its parameters, the initializer shows
T5X the state of this module instead, which lists

  the model's own parameters   shapes, logical axes, partition specs
  param_states/                of the inner optimizer, as T5X names them
  subset/SILO                  k of a silo, its size, its bytes in a checkpoint
  subset_of_all_silos          the same of all of them together
"""

import dataclasses
from typing import Any

from flax import struct, traverse_util
from flax.core import unfreeze
from jax.sharding import PartitionSpec
from t5x import train_state as train_state_lib  # type: ignore

from dst_t5x.checkpoint import delta_checkpoint
from dst_t5x.hooks import delta_state, state_dicts, train_keeper
from dst_t5x.hooks.train_keeper import TrainKeeper


@dataclasses.dataclass(frozen=True)
class SubsetInfo:
  """A row of the list, with what T5X prints of an array.

  Attributes:
    size: of the subset (count).
    shape: what is to be said of it.
  """

  size: int
  shape: str


class DescribedTrainState(train_state_lib.FlaxOptimTrainState):
  """A train state of shapes, to be described and not to be saved.

  Attributes:
    keeper: knows the silos and their budgets.
  """

  keeper: TrainKeeper | None = struct.field(pytree_node=False, default=None)

  def as_logical_axes(self) -> delta_state.SparseAxes:
    """Returns the logical axes of what `state_dict` returns."""
    logical = super().as_logical_axes()
    described = self.state_dict()['state']
    return delta_state.SparseAxes(
      {
        'target': unfreeze(logical.params),
        'state': {
          'param_states': traverse_util.unflatten_dict(
            state_dicts.flat(train_keeper.train_axes(self).inner), sep='/'
          ),
          'step': None,
          'subset': dict.fromkeys(described['subset'], PartitionSpec()),
          'subset_of_all_silos': PartitionSpec(),
        },
      }
    )

  def state_dict(self) -> Any:
    """Returns the model's parameters, the optimizer's state and the subset."""
    assert self.keeper is not None
    optimizer = self._optimizer
    inner = optimizer.state.param_states['selective'].inner
    silos = rows(self.keeper, self)
    return {
      'target': unfreeze(self.params),
      'state': {
        'param_states': traverse_util.unflatten_dict(
          state_dicts.flat(inner), sep='/'
        ),
        'step': optimizer.state.step,
        'subset': silos,
        'subset_of_all_silos': _row(
          self.keeper.plan.budget,
          self.keeper.plan.total,
          delta_checkpoint.array_bytes(self.keeper.arrays(self))['delta'],
        ),
      },
    }

  def restore_state(self, state_dict: Any) -> Any:
    """Raises: the state that describes the model is not the one to restore."""
    raise NotImplementedError(
      'this state describes the model for model-info.txt; give the checkpoint '
      'manager the global_train_state_shape that TrainInitializer has before '
      'from_scratch, as t5x.train does'
    )


def rows(keeper: TrainKeeper, state: Any) -> dict[str, SubsetInfo]:
  """Returns what is said of the subset in each silo.

  Args:
    keeper: of the run.
    state: T5X's train state of shapes.

  Returns:
    Rows by the silo's name in a checkpoint; silos without a budget are left
    out, as there.
  """
  arrays = keeper.arrays(state)
  found = {}
  for name, k, size in zip(
    keeper.silos.names, keeper.budgets, keeper.silos.sizes, strict=True
  ):
    if k:
      held = {p: arrays[p] for p in delta_checkpoint.silo_paths(name)}
      found[delta_checkpoint.key(name)] = _row(
        k, size, delta_checkpoint.array_bytes(held)['delta']
      )
  return found


def _row(k: int, size: int, held: int) -> SubsetInfo:
  return SubsetInfo(k, f'({k} of {size} parameters, {held} bytes)')
