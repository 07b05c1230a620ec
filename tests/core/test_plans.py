"""Plans: what can be wrong before the first step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dst_t5x.core import methods, plans
from dst_t5x.core.silos import SiloError
from tests import untyped

PARAMS = {
  'encoder': {
    'layers_0': {
      'mlp': {'wi': {'kernel': jnp.ones((4, 5))}},
      'pre_mlp_layer_norm': {'scale': jnp.ones(4)},
    },
    'relpos_bias': {'rel_embedding': jnp.ones((2, 3))},
  }
}


def test_arrays_and_shapes_give_the_same_plan():
  a = plans.make(methods.dst(), PARAMS, epsilon=0.1)
  shapes = jax.eval_shape(lambda: PARAMS)
  b = plans.make(methods.dst(), shapes, epsilon=0.1)
  assert a.silos == b.silos and a.budgets == b.budgets
  assert (a.total, a.budget) == (30, 3)


def test_bitfit_takes_t5s_scales_and_position_biases():
  plan = plans.make(methods.bitfit(), PARAMS)
  assert plan.eligible == {
    'encoder/layers_0/pre_mlp_layer_norm/scale',
    'encoder/relpos_bias/rel_embedding',
  }
  assert plan.budget == 4 + 6
  # Other silos only group the same budget.
  assert plans.make(methods.bitfit(), PARAMS, silo_scheme='none').budgets == (
    10,
  )


@pytest.mark.parametrize(
  'method, given, message',
  [
    (methods.full(), {'epsilon': 0.1}, "'full' changes every parameter"),
    (methods.full(), {'budget': 1}, "'full' changes every parameter"),
    (methods.bitfit(), {'epsilon': 0.1}, 'takes neither EPSILON nor BUDGET'),
    (methods.bitfit(pattern='bias'), {}, "'bias' matches no parameter; there"),
    (methods.bitfit(pattern='('), {}, 'is no regex'),
    (methods.dst(), {}, 'not neither'),
    (methods.dst(), {'epsilon': 2}, 'epsilon=2 must'),
    (methods.dst(), {'budget': 31}, 'from 1 to 30'),
    (
      methods.dst(),
      {'budget': 1, 'silo_scheme': 'modules'},
      "nearest: 'module'",
    ),
    (methods.id3(), {'budget': 1}, 'it needs the number of steps'),
    (methods.id3(), {'budget': 1, 'total_steps': 0}, 'not 0'),
  ],
)
def test_wrong_plans(method, given, message):
  with untyped.calls(), pytest.raises(ValueError, match=message):
    plans.make(method, PARAMS, **given)


@pytest.mark.parametrize(
  'leaf, message',
  [
    (jnp.arange(3), "'w/ids' is int32; only floating-point"),
    (3.0, "'w/ids' is no array"),
    (np.ones(3), "'w/ids' is float64, which JAX would round to float32"),
  ],
)
def test_wrong_parameters(leaf, message):
  with pytest.raises(ValueError, match=message):
    plans.make(methods.dst(), {'w': {'ids': leaf}}, epsilon=0.5)


def test_no_parameters_and_too_many():
  with pytest.raises(ValueError, match='there are no parameters'):
    plans.make(methods.dst(), {}, epsilon=0.5)
  huge = {'w': jax.ShapeDtypeStruct((2**16, 2**16), jnp.float32)}
  with pytest.raises(SiloError, match='use finer silos'):
    plans.make(methods.dst(), huge, epsilon=0.5)


@pytest.mark.parametrize('make', [methods.dst, methods.dst_no_churn])
def test_wrong_names_come_with_the_nearest(make):
  with pytest.raises(ValueError, match="nearest: 'inverse_relative'"):
    make(distance='inverse-relative')
  with pytest.raises(SiloError, match="nearest: 'tensor'"):
    make(silo_scheme='tensors')


def test_the_length_of_the_run_fills_an_open_schedule_only():
  plan = plans.make(methods.id3(), PARAMS, budget=4, total_steps=9)
  assert plan.method.schedule.steps == 9
  plan = plans.make(methods.id3(steps=3), PARAMS, budget=4, total_steps=9)
  assert plan.method.schedule.steps == 3
