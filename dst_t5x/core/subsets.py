"""Which parameters are in the subset, as masks over the tensors."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int32

from dst_t5x.core import counting, silo_rows
from dst_t5x.core.counting import Partitioning, ScoreTable
from dst_t5x.core.silos import Silos
from dst_t5x.core.thresholds import SearchResult

Masks = dict[str, jax.Array]  # bool, of the parameter's shape, by path


def chosen(table: ScoreTable, silos: Silos, found: SearchResult) -> Masks:
  """Returns where the scores exceed their silo's threshold, or win a tie.

  Of the scores that equal the threshold, those before the tensor's cutoff do.

  Args:
    table: the scores.
    silos: the partition.
    found: thresholds and cutoffs.

  Returns:
    Masks by path.

  Source: DST, equation 7.
  """
  ids = silo_rows.row_silos(silos)
  limits = silo_rows.by_path(silos, found.threshold[ids])
  cutoffs = None
  if found.cutoff is not None:
    cutoffs = silo_rows.by_path(silos, found.cutoff)
  masks = {}
  for path, placement in silos.placements.items():
    scores, axis = table.scores(path), placement.axis
    limit = silo_rows.along(limits[path], scores.ndim, axis)
    mask = scores > limit
    if cutoffs is not None:
      cutoff = silo_rows.along(cutoffs[path], scores.ndim, axis)
      first = silo_rows.positions(scores.shape, axis) < cutoff
      mask |= (scores == limit) & first
    masks[path] = mask
  return masks


def without(table: ScoreTable, masks: Mapping[str, jax.Array]) -> ScoreTable:
  r"""Returns the scores with 0 where a mask is True.

  A score of 0 is never selected, so this leaves the grow pool.

  Args:
    table: the scores.
    masks: parameters that are in the subset already.

  Returns:
    The scores of the rest.

  Source: ID3, algorithm 1: the importance is taken over θ \ Λ.
  """

  def fn(mask: jax.Array, *operands: jax.Array) -> jax.Array:
    return jnp.where(mask, jnp.float32(0), table.fn(*operands))

  return ScoreTable(
    fn, {p: (masks[p], *ops) for p, ops in table.operands.items()}
  )


def entered(
  masks: Mapping[str, jax.Array],
  params: Mapping[str, jax.Array],
  seed: Mapping[str, jax.Array],
  *,
  silos: Silos,
  partitioning: Partitioning | None,
) -> Int32[Array, '']:
  """Returns how many parameters enter the subset in this step (count).

  Outside the subset the parameters are the seed's, so those that enter are the
  selected ones that still equal it.

  Args:
    masks: the new subset.
    params: before the step.
    seed: Θ⁰.
    silos: the partition.
    partitioning: placement on a mesh.

  Returns:
    The count.
  """

  def enters(mask: Array, param: Array, seed: Array) -> Array:
    return (mask & (param == seed)).astype(jnp.float32)

  table = ScoreTable(
    enters, {p: (mask, params[p], seed[p]) for p, mask in masks.items()}
  )
  # On a mesh this is one all-reduce; a sum a tensor would be one for each.
  half = jnp.full((len(silos.names), 1), 0.5, jnp.float32)
  counts = counting.count(table, silos, half, partitioning=partitioning)
  return jnp.sum(counts, dtype=jnp.int32)
