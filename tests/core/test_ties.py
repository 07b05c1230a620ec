"""Scores that tie: exactly k parameters, those with the smaller index."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dst_t5x.core import (
  counting,
  methods,
  plans,
  score_stacks,
  selective,
  silo_rows,
  silos,
)
from tests import checks

# 100,000 parameters: at ε = 1e-4, 6 and 4.
SHAPES = {'a/w': (300, 200), 'b/w': (250, 160)}


def test_the_first_step_of_adamw_fills_the_subset():
  # AdamW's first update is the learning rate times the sign of the gradient:
  # all absolute distances are equal but for rounding.
  rng = np.random.default_rng(0)
  seed = {p: jnp.float32(rng.normal(size=s)) for p, s in SHAPES.items()}
  gradient = {p: jnp.float32(rng.normal(size=s)) for p, s in SHAPES.items()}
  plan = plans.make(
    methods.dst_no_churn(distance='absolute'), seed, epsilon=1e-4
  )
  assert plan.budgets == (6, 4)
  tx = optax.adamw(1e-3)

  def propose(gradients, inner, params):
    u, inner = tx.update(gradients, inner, params)
    return optax.apply_updates(params, u), inner

  step = jax.jit(
    lambda g, state, params: selective.step(plan, propose, g, state, params)
  )
  state = selective.init(plan, seed, tx.init(seed))
  with jax.numpy_dtype_promotion('standard'):  # optax mixes types
    params, state = step(gradient, state, seed)
  assert state.metrics.subset_size.tolist() == [6, 4]
  counts = {p: int(x.sum()) for p, x in checks.changed(seed, params).items()}
  assert counts == {'a/w': 6, 'b/w': 4}


def test_ties_are_counted_before_cutoffs():
  shapes = {'stack': (3, 4, 5), 'w': (6, 8), 'b': ()}
  partition = silos.assign(shapes, scheme='tensor', stack_axes={'stack': 1})
  rng = np.random.default_rng(0)
  values = {p: np.float32(rng.integers(0, 3, s)) for p, s in shapes.items()}
  rows = [values['stack'][:, i] for i in range(4)]
  rows += [values['w'], values['b']]
  score = np.float32([1, 2, 0, 1, 2, values['b']])
  cutoffs = np.int32([[0, 7, 15]] * 4 + [[1, 30, 48], [0, 1, 1]])
  wanted = [
    [int((row.reshape(-1)[:c] == s).sum()) for c in cs]
    for row, s, cs in zip(rows, score, cutoffs, strict=True)
  ]

  @jax.jit
  def count(values, score, cutoffs):
    table = counting.ScoreTable(
      lambda x: x, {p: (x,) for p, x in values.items()}
    )
    return counting.count_by_row(
      score_stacks.stack(table, partition, None),
      jnp.zeros((6, 5)),
      ties=counting.Ties(jnp.asarray(True), score, cutoffs),
      skip=jnp.zeros(6, jnp.bool_),
    )

  counts = count(values, score, cutoffs)
  assert counts[:, :3].tolist() == wanted
  assert not counts[:, 3:].any()


def test_what_comes_earlier_in_a_silo_stops_at_the_top():
  partition = silos.assign(
    {'a/u': (1,), 'b/u': (1,), 'a/v': (1,), 'a/w': (1,), 'b/v': (1,)}
  )
  top = 2**31 - 1
  got = silo_rows.earlier_in_silo(partition, jnp.int32([top, 5, 7, 1, 2]))
  assert got.tolist() == [0, 0, top, top, 5]
  got = silo_rows.earlier_in_silo(partition, jnp.int32([2**30, top, 9, 1, 2]))
  assert got.tolist() == [0, 0, 2**30, 2**30 + 9, top]
