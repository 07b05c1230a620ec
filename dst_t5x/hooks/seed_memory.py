"""In which memory the train step is to find and leave the seed."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from t5x import train_state as train_state_lib  # type: ignore


def kept_in(kind: str | None, train_state_axes: Any, mesh: Mesh) -> Any:
  """Returns a train state's axes with the seed in another memory.

  Tells the optimizer, too, which brings the seed over in each step.

  Args:
    kind: of memory, such as 'pinned_host'; None leaves it beside the
      parameters.
    train_state_axes: T5X's, with `optimizer.Selective` in it.
    mesh: of the parameters.

  Returns:
    The axes; unchanged for `None`, and where there is no optimizer.
  """
  if kind is None or isinstance(
    train_state_axes, train_state_lib.InferenceState
  ):
    return train_state_axes
  optimizer = train_state_axes._optimizer
  states = optimizer.state.param_states
  kept = states['selective']
  seed_axes = jax.tree.map(
    lambda spec: NamedSharding(mesh, spec, memory_kind=kind), kept.seed
  )
  states = {**states, 'selective': kept._replace(seed=seed_axes)}
  optimizer.optimizer_def.seed_memory_kind = kind
  optimizer = optimizer.replace(
    state=optimizer.state.replace(param_states=states)
  )
  return train_state_axes.replace(_optimizer=optimizer)
