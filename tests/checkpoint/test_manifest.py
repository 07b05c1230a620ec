"""Which run may go on from which checkpoint, told by their manifests."""

import copy

import jax.numpy as jnp
import pytest

from dst_t5x.checkpoint import manifest as manifest_lib
from dst_t5x.checkpoint import resume_checks
from dst_t5x.core import methods, plans

PARAMS = {'a': jnp.ones((4, 5))}


def made(name: str, **rate) -> dict:
  plan = plans.make(methods.by_name(name), PARAMS, budget=2)
  return manifest_lib.make(
    plan,
    PARAMS,
    epsilon=None,
    silo_scheme=None,
    inner_state='full',
    keep_first=False,
    seed={'location': 'seed', 'fingerprint': 'sha256:0'},
    **rate,
  )


def scanned(layers: int, **settings) -> tuple[dict, plans.Plan]:
  params = {
    'encoder': {
      'encoder': {
        'mlp': {'wi': jnp.ones((4, layers, 5)), 'wo': jnp.ones((5, layers, 4))},
        'norm': {'scale': jnp.ones((4, layers))},
      },
      'encoder_norm': {'scale': jnp.ones(4)},
    }
  }
  stacks = {
    f'encoder/encoder/{path}': 1 for path in ('mlp/wi', 'mlp/wo', 'norm/scale')
  }
  plan = plans.make(
    methods.dst(), params, epsilon=0.1, stack_axes=stacks, **settings
  )
  manifest = manifest_lib.make(
    plan,
    params,
    epsilon=0.1,
    silo_scheme=None,
    inner_state='full',
    keep_first=False,
    seed={'location': 'seed', 'fingerprint': 'sha256:0'},
  )
  return manifest, plan


def as_older_versions_wrote(manifest: dict) -> dict:
  old = copy.deepcopy(manifest)
  for key in ('learning_rate', 'rate_by_default'):
    del old[key]
  names = {'random_masked': 'random_mask', 'pafi_masked': 'pafi'}
  name = old['method']['name']
  old['method']['name'] = names.get(name, name)
  return old


@pytest.mark.parametrize('layers', [1, 3, 12])
@pytest.mark.parametrize('scheme', ['module_and_layer', 'module', 'tensor'])
def test_silos_come_back_from_the_manifest(layers, scheme):
  """Those of layers_10 and layers_11 come before that of layers_2."""
  manifest, plan = scanned(layers, silo_scheme=scheme)
  partition, budgets = manifest_lib.silos_of(manifest)
  assert partition._replace(placements=dict(partition.placements)) == (
    plan.silos._replace(placements=dict(plan.silos.placements))
  )
  assert budgets == plan.budgets


def test_a_run_with_other_names_of_silos_is_told_so():
  run, _ = scanned(2)
  saved = copy.deepcopy(run)
  for i, silo in enumerate(saved['silos']):
    silo[0] = f'encoder/encoder/{i}'
  with pytest.raises(
    manifest_lib.ManifestError,
    match=r"silos: 5 there and 5 here, for example 'encoder/encoder/0' and ",
  ):
    resume_checks.check_same(run, saved, 'old')
  saved = copy.deepcopy(run)
  saved['silos'][0][1] += 1
  with pytest.raises(manifest_lib.ManifestError, match='the budgets or the'):
    resume_checks.check_same(run, saved, 'old')


@pytest.mark.parametrize('name', ['random_masked', 'pafi_masked', 'dst'])
def test_an_older_run_goes_on_under_the_name_of_today(name):
  run = made(name, learning_rate=0.1)
  resume_checks.check_same(run, as_older_versions_wrote(run), 'old')


@pytest.mark.parametrize(
  ('masked', 'dense'),
  [('random_masked', 'random_mask'), ('pafi_masked', 'pafi')],
)
def test_an_older_masked_run_does_not_become_a_dense_one(masked, dense):
  old = as_older_versions_wrote(made(masked))
  assert old['method']['name'] == dense
  with pytest.raises(manifest_lib.ManifestError) as raised:
    resume_checks.check_same(made(dense, learning_rate=0.1), old, 'old')
  for words in (
    f'{masked!r} there, {dense!r} here',
    'mask_gradients: True there, False here',
  ):
    assert words in str(raised.value)


def test_a_default_rate_that_has_changed_is_noticed():
  before = made('dst', learning_rate=0.2, rate_by_default=True)
  now = made('dst', learning_rate=0.3, rate_by_default=True)
  resume_checks.check_same(before, before, 'here')
  with pytest.raises(
    manifest_lib.ManifestError, match=r'0\.2 there, 0\.3 here.*LEARNING_RATE'
  ):
    resume_checks.check_same(now, before, 'here')
  # A rate that the user gives is the user's to change.
  resume_checks.check_same(made('dst', learning_rate=0.3), before, 'here')


def test_a_rate_that_no_checkpoint_recorded_is_asked_for():
  run = made('dst', learning_rate=0.2, rate_by_default=True)
  with pytest.raises(
    manifest_lib.ManifestError, match=r'not recorded there, 0\.2 here'
  ):
    resume_checks.check_same(run, as_older_versions_wrote(run), 'old')
