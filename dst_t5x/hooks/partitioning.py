"""The partitioner hook: meshes that can be asked for, and where the seed lies.

T5X's CPU mesh is always (processes × devices of one process), whatever
`num_partitions` says. This partitioner gives the CPU the mesh that was asked
for, so that a recipe can be rehearsed without an accelerator on the mesh it
will have; and it does so for TPUs that are newer than T5X's defaults.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from t5x import partitioning  # type: ignore
from t5x import train_state as train_state_lib  # type: ignore

from dst_t5x.hooks import submesh


class Partitioner(partitioning.PjitPartitioner):
  """T5X's partitioner, with a data × model mesh on the CPU and any TPU, too.

  Args:
    num_partitions: how many ways each parameter is split (count).
    logical_axis_rules: as in T5X; `standard_logical_axis_rules` by default.
    seed_memory_kind: where the seed is kept: None beside the parameters,
      'pinned_host' in the host's memory, from which each step brings it over.
    **options: of `PjitPartitioner`.

  Raises:
    ValueError: if the mesh needs other devices than there are, or the devices
      have no such memory.
  """

  def __init__(
    self,
    num_partitions: int | None = None,
    logical_axis_rules: Sequence[tuple[str, Any]] | None = None,
    seed_memory_kind: str | None = None,
    **options: Any,
  ):
    super().__init__(
      num_partitions=num_partitions,
      logical_axis_rules=logical_axis_rules,
      **options,
    )
    box = options.get('model_parallel_submesh')
    parts = int(np.prod(box)) if box else num_partitions
    _check_devices(parts)
    _check_memory(seed_memory_kind)
    self.seed_memory_kind = seed_memory_kind

  @property
  def mesh(self) -> Mesh:
    """The devices, as data × model."""
    parts = self._num_partitions
    if jax.default_backend() == 'cpu' and parts:
      return cpu_mesh(parts)
    last = jax.devices()[-1]
    given = self._model_parallel_submesh or self._ici_mesh_shape
    if (
      last.platform == 'tpu'
      and not given
      and last.device_kind not in submesh.KNOWN_TO_T5X
    ):
      bounds = partitioning.bounds_from_last_device(last)
      return partitioning.get_mesh(
        submesh.choose(parts, bounds, kind=last.device_kind)
      )
    return super().mesh


def cpu_mesh(num_partitions: int) -> Mesh:
  """Returns all CPU devices, of every process, as a data × model mesh.

  Args:
    num_partitions: length of the axis 'model' (count).

  Returns:
    The mesh; devices of one process are neighbours.

  Raises:
    ValueError: if the number of devices is no multiple.
  """
  _check_devices(num_partitions)
  devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
  grid = np.array(devices, dtype=object).reshape(-1, num_partitions)
  return Mesh(grid, ('data', 'model'))


def with_seed_in(
  memory_kind: str | None, train_state_axes: Any, mesh: Mesh
) -> Any:
  """Returns a train state's axes with the seed in another memory.

  It also sets the optimizer's `seed_memory_kind`: the optimizer brings the seed
  over in every step.

  Args:
    memory_kind: such as 'pinned_host'; None leaves the seed beside the
      parameters.
    train_state_axes: T5X's, with `optimizer.Selective` in it.
    mesh: of the parameters.

  Returns:
    The axes; unchanged for None, and where there is no optimizer.
  """
  if memory_kind is None or isinstance(
    train_state_axes, train_state_lib.InferenceState
  ):
    return train_state_axes
  optimizer = train_state_axes._optimizer
  states = optimizer.state.param_states
  kept = states['selective']
  seed_axes = jax.tree.map(
    lambda spec: NamedSharding(mesh, spec, memory_kind=memory_kind), kept.seed
  )
  states = {**states, 'selective': kept._replace(seed=seed_axes)}
  optimizer.optimizer_def.seed_memory_kind = memory_kind
  optimizer = optimizer.replace(
    state=optimizer.state.replace(param_states=states)
  )
  return train_state_axes.replace(_optimizer=optimizer)


def _check_devices(parts: int | None) -> None:
  count = jax.device_count()
  if parts and count % parts:
    raise ValueError(
      f'num_partitions={parts} needs a multiple of {parts} devices, and there '
      f'{"is" if count == 1 else "are"} {count} ({jax.default_backend()}); '
      'give a divisor, or more devices (on the CPU '
      'XLA_FLAGS=--xla_force_host_platform_device_count=N)'
    )


def _check_memory(kind: str | None) -> None:
  if kind is None:
    return
  device = jax.local_devices()[0]
  kinds = sorted(memory.kind for memory in device.addressable_memories())
  if kind not in kinds:
    raise ValueError(
      f'seed_memory_kind={kind!r}: {device.device_kind} has '
      f'{", ".join(kinds)}; or None, beside the parameters'
    )
