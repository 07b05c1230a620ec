"""Train states whose checkpoints hold the delta instead of the parameters.

To `jit`, such a state is the dense tree of arrays that T5X knows. Only what
T5X's checkpoint manager asks for is sparse: `state_dict`, `restore_state` and
`as_logical_axes` are of the delta and of what a resume needs.
"""

import dataclasses
from typing import Any

from flax import struct
from t5x import train_state as train_state_lib  # type: ignore

from dst_t5x.hooks.inference_keeper import InferenceKeeper
from dst_t5x.hooks.train_keeper import TrainKeeper


def with_keeper(kind: Any, state: Any, keeper: Any) -> Any:
  """Returns one of T5X's states as one that is saved as a delta.

  Args:
    kind: `DeltaTrainState` or `DeltaInferenceState`; or
      `model_info.DescribedTrainState`.
    state: T5X's, of arrays, shapes or axes; or of one of these kinds.
    keeper: for states of this kind.

  Returns:
    The same fields, with the keeper.
  """
  fields = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
  return kind(**{**fields, 'keeper': keeper})


class SparseAxes:
  """Axes of a sparse state; what the partitioner asks of a train state."""

  def __init__(self, tree: Any):
    self._tree = tree

  def state_dict(self) -> Any:
    """Returns the axes as a nested dict."""
    return self._tree

  def restore_state(self, state_dict: Any) -> 'SparseAxes':
    """Returns other axes of the same structure."""
    return SparseAxes(state_dict)


class DeltaTrainState(train_state_lib.FlaxOptimTrainState):
  """A train state that is saved as a delta.

  Attributes:
    keeper: knows the seed, the silos and what is kept.
  """

  keeper: TrainKeeper | None = struct.field(pytree_node=False, default=None)

  def as_logical_axes(self) -> SparseAxes:
    """Returns the axes of what `state_dict` returns: all replicated."""
    assert self.keeper is not None
    return SparseAxes(self.keeper.axes(self))

  def state_dict(self) -> Any:
    """Returns the delta and what a resume needs."""
    assert self.keeper is not None
    return self.keeper.state_dict(self)

  def restore_state(self, state_dict: Any) -> 'DeltaTrainState':
    """Returns the state that was saved, on top of the seed."""
    assert self.keeper is not None
    return self.keeper.restore(self, state_dict)

  def replace_step(self, step: Any) -> 'DeltaTrainState':
    """Returns the state with another step of T5X's count."""
    optimizer = self._optimizer
    state = optimizer.state.replace(step=step)
    return self.replace(_optimizer=optimizer.replace(state=state))


class DeltaInferenceState(train_state_lib.InferenceState):
  """An inference state that is restored from a delta and the seed.

  Attributes:
    keeper: knows the seed and the silos.
  """

  keeper: InferenceKeeper | None = struct.field(pytree_node=False, default=None)

  def as_logical_axes(self) -> SparseAxes:
    """Returns the axes of what `state_dict` returns: all replicated."""
    assert self.keeper is not None
    return SparseAxes(self.keeper.axes(self))

  def state_dict(self) -> Any:
    """Returns the shapes of the delta."""
    assert self.keeper is not None
    return self.keeper.state_dict(self)

  def restore_state(self, state_dict: Any) -> 'DeltaInferenceState':
    """Returns the seed's parameters with the delta in them."""
    assert self.keeper is not None
    return self.keeper.restore(self, state_dict)
