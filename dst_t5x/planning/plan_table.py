"""A counted plan as a table for people."""

from dst_t5x.planning import recipe_plan
from dst_t5x.planning.recipe_plan import SlicePlan


def rows(plan: SlicePlan) -> list[tuple[str, str]]:
  """Returns the rows of a table on what a run keeps on a slice.

  Args:
    plan: see `recipe_plan.of`.

  Returns:
    Labels and values; the last row says whether the run fits.
  """
  slice_, recipe = plan.slice_, plan.recipe
  data, model = plan.mesh
  lengths = ', '.join(f'{name} {n}' for name, n in recipe.lengths.items())
  seed = gib(plan.seed)
  if plan.seed_on_host:
    seed += f', {gib(plan.seed_on_host)} on the host'
  inner_state = f'not counted: {recipe.optimizer}'
  if plan.inner_state is not None:
    inner_state = gib(plan.inner_state)
  return [
    ('accelerator', slice_.accelerator_type),
    ('topology', str(slice_)),
    ('hosts', f'{slice_.hosts} of {slice_.devices_per_host} devices'),
    ('mesh', f'data {data} × model {model}'),
    (
      'batch a device',
      f'{plan.batch_per_device:g} of {recipe.batch_size} rows, {lengths}',
    ),
    ('parameters', f'{plan.total:,}'),
    ('budget', f'{plan.budget:,}'),
    ('bytes of parameters a device', gib(plan.parameters)),
    ('bytes of seed a device', seed),
    ('bytes of inner state a device', inner_state),
    ('bytes of subset state a device', gib(plan.subset_state)),
    ('bytes of gradients a device', gib(plan.gradients)),
    ('all of these', f'{gib(plan.counted)} of {gib(slice_.device_bytes)}'),
    ('fits', _verdict(plan)),
  ]


def gib(count: int) -> str:
  """Returns a number of bytes for people.

  Args:
    count: of bytes.

  Returns:
    The number in GiB, or in MiB if it is less than one GiB.

  Example:
    >>> gib(5 * 2**30), gib(3 * 2**20)
    ('5.00 GiB', '3.0 MiB')
  """
  if count >= 2**30:
    return f'{count / 2**30:.2f} GiB'
  return f'{count / 2**20:.1f} MiB'


def too_large(plan: SlicePlan) -> str | None:
  """Returns why a run cannot fit, whatever its activations take.

  Args:
    plan: see `recipe_plan.of`.

  Returns:
    A sentence that says what would help; None if what is counted fits.
  """
  if plan.fits:
    return None
  slice_ = plan.slice_
  partitions = recipe_plan.smallest_partitions(plan.recipe, slice_)
  advice = 'it fits with no NUM_PARTITIONS: take a larger slice'
  if partitions is not None:
    advice = f'NUM_PARTITIONS={partitions} would do, without activations'
  return (
    f'this run does not fit on {slice_} with '
    f'NUM_PARTITIONS={plan.num_partitions}: what is kept, and the gradients, '
    f'take {gib(plan.counted)} of the {gib(slice_.device_bytes)} of each '
    f'device; {advice}'
  )


def _verdict(plan: SlicePlan) -> str:
  if plan.fits:
    return 'yes, without activations, which only compiling counts'
  partitions = recipe_plan.smallest_partitions(plan.recipe, plan.slice_)
  if partitions is None:
    return 'no, however it is split: take a larger slice'
  return f'no; NUM_PARTITIONS={partitions} would, without activations'
