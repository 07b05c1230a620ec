"""Bytes that a run keeps on each device of a slice, counted and not compiled.

  parameters, seed, inner state, subset state: what is there between two steps
  gradients: as many bytes as the parameters, during a step

Activations are not counted: only a compiler knows them (`compiled`).
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from dst_t5x.core import methods, plans
from dst_t5x.network import transformer
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.planning import parameter_bytes
from dst_t5x.planning.slices import Slice
from dst_t5x.recipes import gin_flags
from dst_t5x.recipes import recipe as recipe_lib
from dst_t5x.recipes.gin_flags import RecipeError
from dst_t5x.recipes.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class SlicePlan:
  """What a run keeps on a slice: bytes are for each device, save the delta's.

  Attributes:
    slice_: the TPU slice.
    recipe: what the flags and gin files of the run say.
    num_partitions: ways that each parameter is split (count).
    total: parameters of the model (count).
    budget: parameters that a delta may change (count).
    parameters: bytes of the parameters.
    seed: bytes of the seed on the device.
    seed_on_host: bytes of the seed in the host's memory.
    inner_state: bytes of the inner optimizer; None if it is not Adafactor.
    subset_state: bytes of kept subsets: the method's and the first step's.
    gradients: bytes of the gradients.
    delta: bytes of positions and values for the whole model, uncoded.
  """

  slice_: Slice
  recipe: Recipe
  num_partitions: int
  total: int
  budget: int
  parameters: int
  seed: int
  seed_on_host: int
  inner_state: int | None
  subset_state: int
  gradients: int
  delta: int

  @property
  def mesh(self) -> tuple[int, int]:
    """Sizes of the mesh's axes 'data' and 'model' (counts)."""
    return (
      self.slice_.devices // self.num_partitions,
      self.num_partitions,
    )

  @property
  def batch_per_device(self) -> float:
    """Rows of a step for each part of the data axis."""
    return self.recipe.batch_size / self.mesh[0]

  @property
  def counted(self) -> int:
    """Bytes on each device of all that is counted."""
    return (
      self.parameters
      + self.seed
      + (self.inner_state or 0)
      + self.subset_state
      + self.gradients
    )

  @property
  def fits(self) -> bool:
    """Whether what is counted leaves room on the device."""
    return self.counted < self.slice_.device_bytes

  def to_json(self) -> dict[str, Any]:
    """Returns the plan as JSON-compatible values."""
    return {
      'accelerator_type': self.slice_.accelerator_type,
      'topology': str(self.slice_),
      'devices': self.slice_.devices,
      'hosts': self.slice_.hosts,
      'devices_per_host': self.slice_.devices_per_host,
      'device_bytes': self.slice_.device_bytes,
      'mesh': {'data': self.mesh[0], 'model': self.mesh[1]},
      'batch_size': self.recipe.batch_size,
      'batch_per_device': self.batch_per_device,
      'lengths': dict(self.recipe.lengths),
      'method': self.recipe.method,
      'epsilon': self.recipe.epsilon,
      'parameters': self.total,
      'budget': self.budget,
      'bytes_per_device': {
        'parameters': self.parameters,
        'seed': self.seed,
        'seed_on_host': self.seed_on_host,
        'inner_state': self.inner_state,
        'subset_state': self.subset_state,
        'gradients': self.gradients,
        'all': self.counted,
      },
      'delta_bytes': self.delta,
      'fits_without_activations': self.fits,
    }


def of_recipe(flags: Sequence[str], slice_: Slice) -> SlicePlan:
  """Returns what a run of T5X keeps on a slice.

  Args:
    flags: T5X's command line, as after `python -m t5x.train`;
      `recipe.DEFAULT_FILES` stand for a method, task or run that it does not
      name.
    slice_: the slice; see `slices.parse`.

  Returns:
    The plan.

  Raises:
    RecipeError: if the flags cannot be read, or do not fit the slice.
    SiloError: if the budget is wrong.

  Example:
    >>> from dst_t5x.planning import slices
    >>> plan = of_recipe(
    ...   ['--gin_file=models/t5_1_1_xxl.gin', '--gin.EPSILON=1e-6',
    ...    '--gin.NUM_PARTITIONS=4'], slices.parse('v5p:4x4x4'))
    >>> plan.total, plan.budget, plan.mesh, plan.fits
    (11135332352, 11135, (16, 4), True)
  """
  return of(recipe_lib.read(gin_flags.parse(flags)), slice_)


def of(recipe: Recipe, slice_: Slice) -> SlicePlan:
  """Returns what a run keeps on a slice.

  Args:
    recipe: what the run is; see `recipe.read`.
    slice_: the slice; see `slices.parse`.

  Returns:
    The plan.

  Raises:
    RecipeError: if the mesh or the batch does not fit the slice.
    SiloError: if the budget is wrong.
  """
  partitions = recipe.num_partitions
  _check_mesh(recipe, slice_)
  shapes = _parameter_shapes(recipe.network)
  parameter_bytes.check_split(shapes, partitions)
  method = _method(recipe.method)
  selects = method.score is not None
  budget = 0
  if selects:
    budget = plans.make(
      method,
      shapes,
      epsilon=recipe.epsilon,
      budget=recipe.budget,
      # Only the counts are asked for; a schedule's length does not change them.
      total_steps=1,
    ).budget
  numbers = parameter_bytes.numbers_per_device(shapes, partitions)
  seed = 4 * numbers if selects else 0
  on_host = recipe.seed_memory_kind is not None
  kept_subsets = int(selects and recipe.keep_first)
  kept_subsets += int(selects and method.schedule.keep)
  inner_state = None
  if recipe.optimizer.endswith('Adafactor'):
    inner_state = parameter_bytes.adafactor_bytes(shapes, partitions)
  return SlicePlan(
    slice_=slice_,
    recipe=recipe,
    num_partitions=partitions,
    total=sum(math.prod(leaf.shape) for leaf in shapes.values()),
    budget=budget,
    parameters=4 * numbers,
    seed=0 if on_host else seed,
    seed_on_host=seed if on_host else 0,
    inner_state=inner_state,
    # A subset is a byte for each number.
    subset_state=numbers * kept_subsets,
    gradients=4 * numbers,
    delta=8 * budget,
  )


def smallest_partitions(
  recipe: Recipe, slice_: Slice, *, room: float = 1.0
) -> int | None:
  """Returns the least NUM_PARTITIONS with which a run fits on a slice.

  Args:
    recipe: what the run is; its own NUM_PARTITIONS does not matter.
    slice_: the slice; see `slices.parse`.
    room: how much of the device what is counted may take (fraction).

  Returns:
    A power of two; None if the run does not fit with any.
  """
  partitions = 1
  while partitions <= slice_.devices:
    try:
      plan = of(recipe._replace(num_partitions=partitions), slice_)
    except RecipeError:
      plan = None
    if plan is not None and plan.counted < room * slice_.device_bytes:
      return partitions
    partitions *= 2
  return None


def _check_mesh(recipe: Recipe, slice_: Slice) -> None:
  partitions = recipe.num_partitions
  if slice_.devices % partitions:
    raise RecipeError(
      f'NUM_PARTITIONS={partitions} does not divide the {slice_.devices} '
      f'devices of {slice_}'
    )
  data = slice_.devices // partitions
  if recipe.batch_size % data:
    raise RecipeError(
      f'BATCH_SIZE={recipe.batch_size} is no multiple of {data}, the parts '
      f'that a batch is split into ({slice_.devices} devices of {slice_}, '
      f'NUM_PARTITIONS={partitions})'
    )


def _method(name: str) -> methods.Method:
  try:
    return methods.by_name(name)
  except ValueError as error:
    raise RecipeError(f'METHOD: {error}') from error


@functools.lru_cache(maxsize=4)
def _parameter_shapes(
  config: NetworkConfig,
) -> Mapping[str, jax.ShapeDtypeStruct]:
  # They do not depend on the dtype of activations.
  config = dataclasses.replace(config, dtype='float32')
  return transformer.param_shapes(config)
