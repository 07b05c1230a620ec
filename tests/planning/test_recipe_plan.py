"""Bytes a device, worked out by hand where the numbers are small."""

import pytest

from dst_t5x.core.silos import SiloError
from dst_t5x.planning import plan_table, recipe_plan, slices
from dst_t5x.recipes.gin_flags import RecipeError

TINY = ('--gin_file=models/byte_tiny.gin', '--gin.EPSILON=0.01')
# Parameters of the bundled seed's network, as `dst-t5x seed info` counts them
# in its file.
TOTAL = 517_760


def plan(*arguments, slice_='v5e-4'):
  return recipe_plan.of_recipe(arguments, slices.parse(slice_))


def verdict(counted):
  return dict(plan_table.rows(counted))['fits']


def test_counts_every_copy():
  found = plan(*TINY)
  assert found.total == TOTAL
  assert found.budget == round(0.01 * TOTAL)
  assert found.parameters == found.seed == found.gradients == 4 * TOTAL
  assert found.subset_state == 0
  assert found.mesh == (4, 1)
  assert found.batch_per_device == 32
  assert found.fits
  assert found.inner_state is not None
  assert found.counted == (
    3 * 4 * TOTAL + found.inner_state + found.subset_state
  )


def test_partitions_split_what_t5x_splits():
  whole, split = plan(*TINY), plan(*TINY, '--gin.NUM_PARTITIONS=4')
  # Norms lie whole on every device; everything else is in four parts.
  norms = (2 * 2 + 2 * 3 + 2) * 96  # encoder, decoder, the last of each
  assert split.parameters == 4 * ((TOTAL - norms) // 4 + norms)
  assert split.parameters < whole.parameters / 3.9
  assert split.mesh == (1, 4)
  assert split.batch_per_device == 128


@pytest.mark.parametrize(
  ('method', 'seeds', 'subsets'),
  # Whole copies of the parameters, and bytes a parameter for kept subsets.
  [('dst', 1, 0), ('id3', 1, 1), ('pafi', 1, 1), ('full', 0, 0)],
)
def test_methods_keep_what_they_need(method, seeds, subsets):
  found = plan(*TINY, f'--gin_file=methods/{method}.gin')
  assert found.seed == seeds * 4 * TOTAL
  assert found.subset_state == subsets * TOTAL


def test_seed_in_the_hosts_memory():
  found = plan(*TINY, "--gin.SEED_MEMORY_KIND='pinned_host'")
  assert (found.seed, found.seed_on_host) == (0, 4 * TOTAL)
  assert 'on the host' in dict(plan_table.rows(found))['bytes of seed a device']


def test_overlap_keeps_the_first_subset():
  assert plan(*TINY, '--gin.TRACK_OVERLAP=True').subset_state == TOTAL


def test_unknown_optimizer_is_not_counted():
  found = plan(*TINY, '--gin.OPTIMIZER=@inner.Optax()')
  assert found.inner_state is None
  rows = dict(plan_table.rows(found))
  assert rows['bytes of inner state a device'] == 'not counted: inner.Optax'
  assert found.to_json()['bytes_per_device']['inner_state'] is None


def test_what_does_not_fit_says_what_would():
  xxl = ('--gin_file=models/t5_1_1_xxl.gin', '--gin.EPSILON=1e-6')
  found = plan(*xxl, slice_='v5p-128')
  assert not found.fits
  assert verdict(found).startswith('no; NUM_PARTITIONS=2 would')
  assert plan(*xxl, '--gin.NUM_PARTITIONS=2', slice_='v5p-128').fits
  lost = plan(*xxl, slice_='v4-8')
  assert verdict(lost).startswith('no, however it is split')
  assert not lost.to_json()['fits_without_activations']


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--gin.NUM_PARTITIONS=3'], 'NUM_PARTITIONS=3 does not divide the 4'),
    (['--gin.BATCH_SIZE=6'], 'BATCH_SIZE=6 is no multiple of 4'),
    (['--gin.METHOD=@methods.dust()'], "unknown method 'dust'; nearest"),
    (['--gin.METHOD=@methods.Method()'], "METHOD: unknown method 'Method'"),
  ],
)
def test_refuses(arguments, message):
  with pytest.raises(RecipeError, match=message):
    plan(*TINY, *arguments)


def test_refuses_a_split_that_a_parameter_does_not_allow():
  # The heads of the bias cannot be split into 16.
  with pytest.raises(RecipeError, match=r'does not divide \d+, axis 0'):
    plan(*TINY, '--gin.NUM_PARTITIONS=16', slice_='v5e-16')


def test_refuses_a_wrong_budget():
  with pytest.raises(SiloError, match='epsilon'):
    plan(*TINY, '--gin.EPSILON=2.0')
