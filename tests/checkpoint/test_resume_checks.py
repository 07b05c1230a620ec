"""Messages about a checkpoint of another run name what users set."""

import jax
import numpy as np
import pytest

from dst_t5x.checkpoint import resume_checks
from dst_t5x.checkpoint.manifest import ManifestError
from dst_t5x.core import methods, plans
from tests.checkpoint.test_manifest import PARAMS, manifest_lib

ADAFACTOR = {'name': 'Adafactor', 'settings': {'decay_rate': 0.8, 'new': 1}}


def made(*, method=None, **changes):
  plan = plans.make(
    method or methods.dst(), PARAMS, budget=changes.pop('budget', 2)
  )
  settings = {
    'epsilon': None,
    'silo_scheme': None,
    'inner_state': 'full',
    'keep_first': False,
    'seed': {'location': 'seed', 'fingerprint': 'sha256:0'},
    'optimizer': ADAFACTOR,
  }
  return manifest_lib.make(plan, PARAMS, **{**settings, **changes})


def shapes(**arrays):
  return {
    path.replace('__', '/'): jax.ShapeDtypeStruct(shape, np.dtype('float32'))
    for path, shape in arrays.items()
  }


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'epsilon': 0.1}, 'EPSILON: None there, 0.1 here'),
    ({'budget': 3}, 'BUDGET (as a count): 2 there, 3 here'),
    (
      {'silo_scheme': 'tensor'},
      "SILOS: 'module_and_layer' there, 'tensor' here",
    ),
    ({'inner_state': 'none'}, "INNER_STATE: 'full' there, 'none' here"),
    ({'keep_first': True}, 'TRACK_OVERLAP: False there, True here'),
    (
      {'method': methods.dst_no_churn()},
      "METHOD's name: 'dst' there, 'dst_no_churn' here",
    ),
    (
      {'seed': {'location': 'other', 'fingerprint': 'sha256:1'}},
      'INITIAL_CHECKPOINT_PATH (the seed): seed (sha256:0…) there',
    ),
    (
      {'optimizer': {'name': 'Optax(adamw)', 'settings': {}}},
      'OPTIMIZER: Adafactor there, Optax(adamw) here',
    ),
    (
      {'optimizer': {'name': 'Adafactor', 'settings': {'decay_rate': 0.5}}},
      'OPTIMIZER (Adafactor.decay_rate): 0.8 there, 0.5 here',
    ),
  ],
)
def test_what_differs_is_named_as_it_is_set(changes, words):
  with pytest.raises(ManifestError) as raised:
    resume_checks.check_same(made(**changes), made(), 'there')
  assert words in str(raised.value)


@pytest.mark.parametrize(
  ('run', 'saved'),
  [
    # An older release recorded none, or fewer settings.
    (made(), made(optimizer=None)),
    (
      made(),
      made(optimizer={'name': 'Adafactor', 'settings': {'decay_rate': 0.8}}),
    ),
    # Weights alone go on with any.
    (
      made(inner_state='none', optimizer={'name': 'Sgd', 'settings': {}}),
      made(inner_state='none'),
    ),
    (made(learning_rate=0.1), made(learning_rate=0.2)),
  ],
  ids=['not_recorded', 'fewer_settings', 'weights_alone', 'learning_rate'],
)
def test_what_may_change(run, saved):
  resume_checks.check_same(run, saved, 'there')


def test_state_of_another_optimizer():
  run = shapes(state__inner__v=(2,), state__step=())
  resume_checks.check_inner_state(run, {**run, 'target/a': 0}, 'there')
  for saved in (
    shapes(state__inner__v=(3,)),
    shapes(state__inner__m=(2,)),
    shapes(state__step=()),
  ):
    with pytest.raises(ManifestError, match='OPTIMIZER'):
      resume_checks.check_inner_state(run, saved, 'there')


def test_arrays_of_another_size():
  run = shapes(state__positions__mlp=(518,), target__mlp=(518,))
  with pytest.raises(
    ManifestError, match=r'mlp: \(5178,\) there, \(518,\) here'
  ):
    resume_checks.check_arrays(
      run, shapes(state__positions__mlp=(5178,), target__mlp=(5178,)), 'there'
    )
  with pytest.raises(ManifestError, match='target/mlp: absent there'):
    resume_checks.check_arrays(run, shapes(state__positions__mlp=(518,)), 'x')
