"""The scores of all rows, those that are alike stacked in one array.

A row is a tensor, or one slice of a scanned stack. However many layers a
network has, its rows are of few kinds: rows of one shape, that lie alike on the
mesh, follow one another in a `Stack`. What reads the scores is then a program
of one loop a stack, and takes no longer to compile for more layers. The scores
are computed once, 4 bytes a parameter, and each pass reads them instead of what
they are made of.

On a mesh every device stacks the part of each row that it counts. Devices that
hold the same part split it along one axis where it divides; otherwise the first
of them keeps it, and the others keep −1, which is never counted.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from dst_t5x.arrays import mesh_index
from dst_t5x.core.silos import Silos

_INT32_MAX = 2**31 - 1


class Partitioning(NamedTuple):
  """How the parameters lie on a mesh.

  Attributes:
    mesh: the devices.
    specs: partition of every parameter tensor, by path.
  """

  mesh: Mesh
  specs: Mapping[str, PartitionSpec]


class ScoreTable(NamedTuple):
  """Scores of all parameters, evaluated where they are needed.

  Attributes:
    fn: elementwise function from the operands to non-negative scores.
    operands: arrays of the parameter's shape, by path.
  """

  fn: Callable[..., jax.Array]
  operands: Mapping[str, tuple[jax.Array, ...]]

  def scores(self, path: str) -> jax.Array:
    """Returns the scores of one tensor."""
    return self.fn(*self.operands[path])


class Stack(NamedTuple):
  """Rows that are alike.

  Attributes:
    rows: their numbers in the order of `counting.row_names`.
    members: path and stack axis of the tensors that they come from.
    shape: of each row, whole.
    spec: axes of the mesh over which each axis of a row is sharded.
    row_spec: axes of the mesh over which the rows themselves are sharded.
  """

  rows: tuple[int, ...]
  members: tuple[tuple[str, int | None], ...]
  shape: tuple[int, ...]
  spec: tuple[tuple[str, ...], ...]
  row_spec: tuple[str, ...]


class ScoreStacks(NamedTuple):
  """All scores.

  Attributes:
    stacks: which rows are where.
    values: for every stack, its scores [rows, *row]; on a mesh [devices, rows,
      *row], what each device counts of them.
    mesh: the devices, or None.
  """

  stacks: tuple[Stack, ...]
  values: tuple[Array, ...]
  mesh: Mesh | None


def stack(
  table: ScoreTable, silos: Silos, partitioning: Partitioning | None
) -> ScoreStacks:
  """Returns all scores, evaluated once.

  Args:
    table: the scores.
    silos: the partition, which says what a row is.
    partitioning: placement on a mesh; None leaves it to the compiler.

  Returns:
    The stacks.

  Raises:
    ValueError: if a row stands for 2³¹ parameters or more.
  """
  stacks = _stacks(table, silos, partitioning)
  if partitioning is None:
    values = tuple(_values(s, table.fn, table.operands, None) for s in stacks)
    return ScoreStacks(stacks, values, None)
  mesh, specs = partitioning

  def local(operands: Mapping[str, tuple[Array, ...]]) -> tuple[Array, ...]:
    return tuple(_values(s, table.fn, operands, mesh)[None] for s in stacks)

  in_specs = {p: (specs[p],) * len(ops) for p, ops in table.operands.items()}
  values = jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(in_specs,),
    out_specs=PartitionSpec(mesh.axis_names),
    check_vma=False,
  )(dict(table.operands))
  return ScoreStacks(stacks, values, mesh)


def row_sizes(stacks: ScoreStacks) -> np.ndarray:
  """Returns how many parameters every row stands for.

  Args:
    stacks: the scores.

  Returns:
    int32[rows] (count), in the order of `counting.row_names`.
  """
  sizes = np.zeros(sum(len(s.rows) for s in stacks.stacks), np.int32)
  for s in stacks.stacks:
    sizes[list(s.rows)] = math.prod(s.shape)
  return sizes


def own_starts(stack: Stack, mesh: Mesh | None) -> tuple[Array, ...]:
  """Returns where this device's part of a row begins along every axis.

  For code inside `shard_map`, if there is a mesh.

  Args:
    stack: the rows.
    mesh: the devices, or None.

  Returns:
    int32[] for every axis of a row.
  """
  starts = [jnp.int32(0)] * len(stack.shape)
  if mesh is None:
    return tuple(starts)
  sizes = _shard_shape(stack, mesh)
  for d, axes in enumerate(stack.spec):
    starts[d] = mesh_index.linear_index(mesh, axes) * sizes[d]
  holders = _holders(stack, mesh)
  d = holders.split
  if d is not None:
    index = mesh_index.linear_index(mesh, holders.axes)
    starts[d] += index * (sizes[d] // holders.number)
  return tuple(starts)


def _stacks(
  table: ScoreTable, silos: Silos, partitioning: Partitioning | None
) -> tuple[Stack, ...]:
  alike: dict[object, Stack] = {}
  start = 0
  for path, (ids, axis) in silos.placements.items():
    rows = tuple(range(start, start + len(ids)))
    start += len(ids)
    shape = table.operands[path][0].shape
    spec = ((),) * len(shape)
    if partitioning is not None:
      spec = mesh_index.by_dimension(partitioning.specs[path], len(shape))
    kept = [d for d in range(len(shape)) if d != axis]
    new = Stack(
      rows=rows,
      members=((path, axis),),
      shape=tuple(shape[d] for d in kept),
      spec=tuple(spec[d] for d in kept),
      row_spec=() if axis is None else spec[axis],
    )
    if math.prod(new.shape) > _INT32_MAX:
      raise ValueError(
        f'parameter {path!r} has {math.prod(new.shape)} numbers in one silo; '
        f'the most that one tensor may put into a silo is {_INT32_MAX}'
      )
    # Rows of two tensors on different devices would not follow one another.
    key = path if new.row_spec else (new.shape, new.spec)
    old = alike.get(key)
    if old is not None:
      new = new._replace(
        rows=old.rows + new.rows, members=old.members + new.members
      )
    alike[key] = new
  return tuple(alike.values())


def _values(
  stack: Stack,
  fn: Callable[..., Array],
  operands: Mapping[str, tuple[Array, ...]],
  mesh: Mesh | None,
) -> Array:
  """Returns this device's scores of a stack."""
  parts = []
  for path, axis in stack.members:
    scores = fn(*operands[path])
    rows = scores[None] if axis is None else jnp.moveaxis(scores, axis, 0)
    if mesh is not None:
      (rows,) = mesh_index.own_parts(
        (rows,), _holders(stack, mesh), mesh, nothing=-1, leading=1
      )
    parts.append(rows)
  return parts[0] if len(parts) == 1 else jax.lax.concatenate(parts, 0)


def _shard_shape(stack: Stack, mesh: Mesh) -> tuple[int, ...]:
  return tuple(
    size // math.prod(mesh.shape[a] for a in axes)
    for size, axes in zip(stack.shape, stack.spec, strict=True)
  )


def _holders(stack: Stack, mesh: Mesh) -> mesh_index.Copies:
  """Returns which devices hold the same part of the rows."""
  sharded = {a for axes in (*stack.spec, stack.row_spec) for a in axes}
  return mesh_index.copies(mesh, sharded, _shard_shape(stack, mesh))
