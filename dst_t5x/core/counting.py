"""Counts the scores above many thresholds at once, in every silo.

One pass over a row counts against up to 15 thresholds: a variadic reduction
reads each score once. On a mesh each device counts its own part, and a single
small all-reduce adds the counts of all rows. Counts are whole numbers, so they
are the same on every mesh.

The same program counts the scores that equal one of them before up to
`TIE_WIDTH` positions: a pass does either.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float32, Int32

from dst_t5x.arrays import mesh_index
from dst_t5x.core import score_stacks, silo_rows
from dst_t5x.core.score_stacks import (
  Partitioning,
  ScoreStacks,
  ScoreTable,
  Stack,
)
from dst_t5x.core.silos import Silos

# XLA keeps a reduction of up to this many operands in one fast loop.
WIDTH = 15
# Passes over ties are rare: fewer columns keep the program small.
TIE_WIDTH = 7

_INT32_MAX = 2**31 - 1


class Ties(NamedTuple):
  """Asks for scores that are equal, up to a position, instead of larger ones.

  A position is the row-major index in the tensor, or in the slice of a stack,
  whole, wherever its parts lie on a mesh.

  Attributes:
    asked: bool[], whether this pass counts ties.
    score: float32[rows], what they equal.
    cutoffs: int32[rows, TIE_WIDTH], to count those at smaller positions.
  """

  asked: Bool[Array, '']
  score: Float32[Array, ' rows']
  cutoffs: Int32[Array, 'rows tie_width']


def row_names(silos: Silos) -> tuple[str, ...]:
  """Returns the name of every row that `count` returns.

  A row is a tensor, or one slice of a stack.

  Args:
    silos: the partition.

  Returns:
    Parameter paths; those of slices carry an index.

  Example:
    >>> from dst_t5x.core.silos import assign
    >>> row_names(assign({'a/w': (2,), 'b/w': (3,)}))
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
  partitioning: Partitioning | None = None,
) -> Int32[Array, 'rows width']:
  """Returns how many scores of every row lie above its silo's thresholds.

  c(Δ, q) = Σ I(Δ_i > q), as a count. A NaN counts as +inf, so that a threshold
  of the largest finite float counts everything that is not finite.

  Args:
    table: the scores.
    silos: the partition.
    thresholds: up to 15 for every silo, none below 0.
    partitioning: placement on a mesh; None leaves it to the compiler.

  Returns:
    One row for every name in `row_names(silos)`.

  Raises:
    ValueError: if a row stands for 2³¹ parameters or more.

  Source: DST, equation 8.
  """
  stacks = score_stacks.stack(table, silos, partitioning)
  return count_by_row(stacks, thresholds[silo_rows.row_silos(silos)])


def count_by_row(
  scores: ScoreStacks,
  thresholds: Float32[Array, 'rows width'],
  *,
  ties: Ties | None = None,
  skip: Bool[Array, ' rows'] | None = None,
) -> Int32[Array, 'rows width']:
  """Returns how many scores of every row lie above thresholds of its own.

  Args:
    scores: from `score_stacks.stack`.
    thresholds: up to 15 for every row, none below 0.
    ties: where it asks, the first columns count ties and the others are 0.
    skip: rows whose counts nobody needs; they are 0.

  Returns:
    One row for every name in `row_names(silos)`.
  """
  if scores.mesh is None:
    return _count_all(scores, scores.values, thresholds, ties, skip)
  mesh = scores.mesh

  def sharded(
    values: tuple[Array, ...], thresholds: Array, ties: Any, skip: Any
  ) -> Array:
    own = tuple(x[0] for x in values)
    counts = _count_all(scores, own, thresholds, ties, skip)
    return jax.lax.psum(counts, mesh.axis_names)

  everywhere = PartitionSpec()
  return jax.shard_map(
    sharded,
    mesh=mesh,
    in_specs=(
      PartitionSpec(mesh.axis_names),
      everywhere,
      everywhere,
      everywhere,
    ),
    out_specs=everywhere,
    check_vma=False,
  )(scores.values, thresholds, ties, skip)


def _count_all(
  scores: ScoreStacks,
  values: Sequence[Array],
  thresholds: Array,
  ties: Ties | None,
  skip: Array | None,
) -> Array:
  """Returns this device's counts of all rows."""
  counts = []
  for stack, x in zip(scores.stacks, values, strict=True):
    rows = np.asarray(stack.rows)
    of_rows = jax.tree.map(lambda v, r=rows: v[r], (thresholds, skip))
    if ties is not None:
      of_rows += (ties.score[rows], ties.cutoffs[rows])
    asked = None if ties is None else ties.asked
    counts.append(_count_stack(stack, x, scores.mesh, asked, *of_rows))
  order = np.argsort(np.concatenate([s.rows for s in scores.stacks]))
  return jnp.concatenate(counts)[order]


def _count_stack(
  stack: Stack,
  x: Array,
  mesh: Mesh | None,
  asked: Array | None,
  thresholds: Array,
  skip: Array | None,
  score: Array | None = None,
  cutoffs: Array | None = None,
) -> Array:
  """Returns this device's counts of the rows of one stack."""
  width = thresholds.shape[1]
  # Where the rows are sharded, this device's are some of them.
  first = 0
  if mesh is not None and stack.row_spec:
    first = mesh_index.linear_index(mesh, stack.row_spec) * x.shape[0]

  def row(i: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(x, i, keepdims=False)

  def none(_: Array) -> Array:
    return jnp.zeros(width, jnp.int32)

  def above(i: Array) -> Array:
    scores = row(i).astype(jnp.float32)
    scores = jnp.where(jnp.isnan(scores), jnp.float32(jnp.inf), scores)
    return _sum([scores > t for t in thresholds[first + i]])

  def tied(i: Array) -> Array:
    assert score is not None
    assert cutoffs is not None
    place = jnp.where(
      row(i) == score[first + i],
      silo_rows.positions(
        stack.shape,
        None,
        x.shape[1:],
        score_stacks.own_starts(stack, mesh),
      ),
      jnp.int32(_INT32_MAX),
    )
    counts = _sum([place < c for c in cutoffs[first + i]])
    return jnp.pad(counts, (0, width - counts.size))

  def count(i: Array) -> Array:
    if skip is None:
      return above(i)
    if asked is None:
      return jax.lax.cond(skip[first + i], none, above, i)
    branch = jnp.where(skip[first + i], 0, jnp.where(asked, 2, 1))
    return jax.lax.switch(branch, (none, above, tied), i)

  counts = jnp.zeros((len(stack.rows), width), jnp.int32)
  if x.shape[0] == len(stack.rows) == 1:
    return count(jnp.int32(0))[None]
  return jax.lax.fori_loop(
    jnp.int32(0),
    jnp.int32(x.shape[0]),
    lambda i, c: c.at[first + i].set(count(jnp.int32(i))),
    counts,
  )


def _sum(columns: Sequence[Array]) -> Array:
  ones = tuple(c.astype(jnp.int32) for c in columns)
  dims = tuple(range(ones[0].ndim))
  zeros = (np.int32(0),) * len(ones)
  return jnp.stack(jax.lax.reduce(ones, zeros, _add_each, dims))


def _add_each(a: tuple[Array, ...], b: tuple[Array, ...]) -> tuple[Array, ...]:
  return tuple(x + y for x, y in zip(a, b, strict=True))
