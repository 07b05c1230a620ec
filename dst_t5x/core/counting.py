"""Counts the scores above many thresholds at once, in every silo.

One pass over a tensor counts against up to 15 thresholds: a variadic reduction
reads each score once. On a mesh each device counts its own part, and a single
small all-reduce adds the counts of all tensors. Counts are whole numbers, so
they are the same on every mesh.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float32, Int32

from dst_t5x.arrays import mesh_index
from dst_t5x.core.silos import Placement, Silos

# XLA keeps a reduction of up to this many operands in one fast loop.
WIDTH = 15

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
    fn: elementwise function from the operands to float32 scores.
    operands: arrays of the parameter's shape, by path.
  """

  fn: Callable[..., jax.Array]
  operands: Mapping[str, tuple[jax.Array, ...]]

  def scores(self, path: str) -> jax.Array:
    """Returns the scores of one tensor."""
    return self.fn(*self.operands[path])


def entries(silos: Silos) -> tuple[str, ...]:
  """Returns the name of every row that `count` returns.

  A row is a tensor, or one slice of a stack.

  Args:
    silos: the partition.

  Returns:
    Parameter paths; those of slices carry an index.

  Example:
    >>> from dst_t5x.core.silos import assign
    >>> entries(assign({'a/w': (2,), 'b/w': (3,)}))
    ('a/w', 'b/w')
  """
  names: list[str] = []
  for path, placement in silos.placements.items():
    if placement.axis is None:
      names.append(path)
    else:
      names.extend(f'{path}[{i}]' for i in range(len(placement.silos)))
  return tuple(names)


def count(
  table: ScoreTable,
  silos: Silos,
  thresholds: Float32[Array, 'silos width'],
  *,
  skip: Bool[Array, ' silos'] | None = None,
  partitioning: Partitioning | None = None,
) -> Int32[Array, 'entries width']:
  """Returns how many scores of every tensor lie above its silo's thresholds.

  c(Δ, q) = Σ I(Δ_i > q), as a count. A NaN counts as +inf, so that a threshold
  of the largest finite float counts everything that is not finite.

  Args:
    table: the scores.
    silos: the partition.
    thresholds: up to 15 for every silo.
    skip: silos whose counts nobody needs; their rows are 0.
    partitioning: placement on a mesh; None leaves it to the compiler.

  Returns:
    One row for every name in `entries(silos)`.

  Raises:
    ValueError: if a row stands for 2³¹ parameters or more.

  Source: DST, equation 8.
  """
  _check_sizes(table, silos)
  if skip is None:
    skip = jnp.zeros(len(silos.names), jnp.bool_)
    never_skip = True
  else:
    never_skip = False

  def local(
    thresholds: Array,
    skip: Array,
    operands: Mapping[str, tuple[Array, ...]],
    share: Callable[[str, Array], tuple[Array, Array]],
  ) -> Array:
    rows = []
    for path, placement in silos.placements.items():
      ids = np.asarray(placement.silos)

      def run(
        rows_thresholds: Array,
        path: str = path,
        axis: int | None = placement.axis,
      ) -> Array:
        parts = [share(path, x) for x in operands[path]]
        counts = _count_tensor(
          table.fn(*(x for x, _ in parts)), rows_thresholds, axis
        )
        return counts * parts[0][1]

      rows_thresholds = thresholds[ids]
      if never_skip:
        rows.append(run(rows_thresholds))
      else:
        zeros = jnp.zeros(rows_thresholds.shape, jnp.int32)
        rows.append(
          jax.lax.cond(
            jnp.all(skip[ids]), lambda _, z=zeros: z, run, rows_thresholds
          )
        )
    return jnp.concatenate(rows)

  if partitioning is None:
    one = jnp.int32(1)
    return local(thresholds, skip, table.operands, lambda _, x: (x, one))
  mesh, specs = partitioning

  def sharded(thresholds: Array, skip: Array, operands: Any) -> Array:
    def share(path: str, x: Array) -> tuple[Array, Array]:
      return _own_part(x, specs[path], mesh, silos.placements[path])

    return jax.lax.psum(
      local(thresholds, skip, operands, share), mesh.axis_names
    )

  operand_specs = {
    path: tuple(specs[path] for _ in arrays)
    for path, arrays in table.operands.items()
  }
  return jax.shard_map(
    sharded,
    mesh=mesh,
    in_specs=(PartitionSpec(), PartitionSpec(), operand_specs),
    out_specs=PartitionSpec(),
    check_vma=False,
  )(thresholds, skip, dict(table.operands))


def per_silo(
  silos: Silos, counts: Int32[Array, 'entries width']
) -> Int32[Array, 'silos width']:
  """Returns the sum of the rows of every silo, at most 2³¹ − 1.

  A silo can hold more parameters than int32 counts. Budgets are below 2³¹, so a
  sum that stops at the top still compares with them correctly.

  Args:
    silos: the partition.
    counts: rows as `count` returns them.

  Returns:
    One row a silo.
  """
  ids = np.concatenate(
    [np.asarray(p.silos, np.int32) for p in silos.placements.values()]
  )
  # Two limbs of 15 and 16 bits: neither sum overflows up to 32,768 rows a silo.
  low = jax.ops.segment_sum(counts & 0x7FFF, ids, len(silos.names))
  high = jax.ops.segment_sum(counts >> 15, ids, len(silos.names)) + (low >> 15)
  total = (high << 15) | (low & 0x7FFF)
  return jnp.where(high > 0xFFFF, jnp.int32(_INT32_MAX), total)


def _count_tensor(
  scores: Float32[Array, '...'],
  thresholds: Float32[Array, 'rows width'],
  axis: int | None,
) -> Int32[Array, 'rows width']:
  scores = jnp.where(jnp.isnan(scores), jnp.float32(jnp.inf), scores)
  if axis is None:
    columns = [scores > t for t in thresholds[0]]
    dims = tuple(range(scores.ndim))
  else:
    shape = [1] * scores.ndim
    shape[axis] = scores.shape[axis]
    columns = [scores > t.reshape(shape) for t in thresholds.T]
    dims = tuple(d for d in range(scores.ndim) if d != axis)
  ones = tuple(c.astype(jnp.int32) for c in columns)
  sums = jax.lax.reduce(
    ones,
    (np.int32(0),) * len(ones),
    _add_each,
    dims,
  )
  stacked = jnp.stack([jnp.atleast_1d(s) for s in sums], axis=-1)
  return stacked


def _add_each(a: tuple[Array, ...], b: tuple[Array, ...]) -> tuple[Array, ...]:
  return tuple(x + y for x, y in zip(a, b, strict=True))


def _own_part(
  x: Array, spec: PartitionSpec, mesh: Mesh, placement: Placement
) -> tuple[Array, Array]:
  """Returns the part of a local shard that this device counts, and 1 or 0.

  Devices that hold the same shard split it along one axis where it divides;
  otherwise the first of them counts it and the others count nothing.
  """
  if placement.axis is not None and _axis_spec(spec, placement.axis):
    raise NotImplementedError(
      'a stack whose layer axis is sharded cannot be counted slice by slice; '
      'leave the layers axis unsharded'
    )
  sharded = set()
  for names in spec:
    if names is not None:
      sharded.update(names if isinstance(names, tuple) else (names,))
  copies = [a for a in mesh.axis_names if a not in sharded]
  number = math.prod(mesh.shape[a] for a in copies)
  if number == 1:
    return x, jnp.int32(1)
  index = mesh_index.linear_index(mesh, copies)
  for d in range(x.ndim):
    if d != placement.axis and x.shape[d] and x.shape[d] % number == 0:
      width = x.shape[d] // number
      part = jax.lax.dynamic_slice_in_dim(x, index * width, width, d)
      return part, jnp.int32(1)
  return x, (index == 0).astype(jnp.int32)


def _axis_spec(spec: PartitionSpec, axis: int) -> bool:
  return axis < len(spec) and spec[axis] is not None


def _check_sizes(table: ScoreTable, silos: Silos) -> None:
  for path, placement in silos.placements.items():
    rows = len(placement.silos)
    size = math.prod(table.operands[path][0].shape) // max(rows, 1)
    if size > _INT32_MAX:
      raise ValueError(
        f'parameter {path!r} has {size} numbers in one silo; the most that one '
        f'tensor may put into a silo is {_INT32_MAX}'
      )
