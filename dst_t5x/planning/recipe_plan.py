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
import numpy as np

from dst_t5x.core import methods, plans
from dst_t5x.network import transformer
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.planning import slices
from dst_t5x.recipes import gin_flags
from dst_t5x.recipes import recipe as recipes
from dst_t5x.recipes.gin_flags import RecipeError

# Which axis of a parameter T5X's standard rules split over 'model', by the end
# of its path: they map vocab, mlp, heads and joined_kv to it, and leave embed,
# relpos_buckets and norms whole.
_SPLIT = (
  ('token_embedder/embedding', 0),
  ('relpos_bias/rel_embedding', 0),
  ('query/kernel', 1),
  ('key/kernel', 1),
  ('value/kernel', 1),
  ('attention/out/kernel', 0),
  ('wi/kernel', 1),
  ('wi_0/kernel', 1),
  ('wi_1/kernel', 1),
  ('wo/kernel', 0),
  ('logits_dense/kernel', 1),
)
# Adafactor factors what has at least so many rows and columns (T5X's default).
_FACTORED_FROM = 128


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a run keeps, in bytes a device but for the delta.

  Attributes:
    slice_: of TPU chips.
    recipe: what was read of the run.
    num_partitions: ways that each parameter is split (count).
    total: parameters of the model (count).
    budget: parameters that a delta may change (count).
    parameters: bytes.
    seed: bytes on the device.
    seed_on_host: bytes in the host's memory for each of its devices.
    inner_state: bytes of the inner optimizer; None if it is not Adafactor.
    subset_state: bytes of kept subsets: the method's and the first step's.
    gradients: bytes.
    delta: bytes of positions and values, for the whole model, uncoded.
  """

  slice_: slices.Slice
  recipe: recipes.Recipe
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
    """Data × model (counts)."""
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
    """Bytes a device of all that is counted."""
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

  def rows(self) -> list[tuple[str, str]]:
    """Returns labels and values of a table for people."""
    data, model = self.mesh
    where = f', {gib(self.seed_on_host)} on the host' * bool(self.seed_on_host)
    state = 'not counted: ' + self.recipe.optimizer
    if self.inner_state is not None:
      state = gib(self.inner_state)
    rows = [
      ('accelerator', self.slice_.accelerator_type),
      ('topology', str(self.slice_)),
      (
        'hosts',
        f'{self.slice_.hosts} of {self.slice_.devices_per_host} devices',
      ),
      ('mesh', f'data {data} × model {model}'),
      (
        'batch a device',
        f'{self.batch_per_device:g} of {self.recipe.batch_size} rows, '
        + ', '.join(f'{k} {v}' for k, v in self.recipe.lengths.items()),
      ),
      ('parameters', f'{self.total:,}'),
      ('budget', f'{self.budget:,}'),
      ('bytes of parameters a device', gib(self.parameters)),
      ('bytes of seed a device', gib(self.seed) + where),
      ('bytes of inner state a device', state),
      ('bytes of subset state a device', gib(self.subset_state)),
      ('bytes of gradients a device', gib(self.gradients)),
      (
        'all of these',
        f'{gib(self.counted)} of {gib(self.slice_.device_bytes)}',
      ),
      ('fits', self._verdict()),
    ]
    return rows

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

  def _verdict(self) -> str:
    if self.fits:
      return 'yes, without activations, which only compiling counts'
    better = smallest_partitions(self.recipe, self.slice_)
    if better is None:
      return 'no, however it is split: take a larger slice'
    return f'no; NUM_PARTITIONS={better} would, without activations'


def of_recipe(flags: Sequence[str], slice_: slices.Slice) -> Plan:
  """Returns what a run of T5X keeps on a slice.

  Args:
    flags: T5X's, as after `python -m t5x.train`; without a method, task or run,
      see `recipe.DEFAULT_FILES`.
    slice_: see `slices.parse`.

  Returns:
    The plan.

  Raises:
    RecipeError: if the flags cannot be read, or do not fit the slice.
    SiloError: if the budget is wrong.

  Example:
    >>> plan = of_recipe(
    ...   ['--gin_file=models/t5_1_1_xxl.gin', '--gin.EPSILON=1e-6',
    ...    '--gin.NUM_PARTITIONS=4'], slices.parse('v5p:4x4x4'))
    >>> plan.total, plan.budget, plan.mesh, plan.fits
    (11135332352, 11135, (16, 4), True)
  """
  return of(recipes.read(gin_flags.parse(flags)), slice_)


def of(recipe: recipes.Recipe, slice_: slices.Slice) -> Plan:
  """Returns what a run keeps on a slice.

  Args:
    recipe: see `recipe.read`.
    slice_: see `slices.parse`.

  Returns:
    The plan.

  Raises:
    RecipeError: if the mesh or the batch does not fit the slice.
    SiloError: if the budget is wrong.
  """
  parts = recipe.num_partitions
  if slice_.devices % parts:
    raise RecipeError(
      f'NUM_PARTITIONS={parts} does not divide the {slice_.devices} devices of '
      f'{slice_}'
    )
  data = slice_.devices // parts
  if recipe.batch_size % data:
    raise RecipeError(
      f'BATCH_SIZE={recipe.batch_size} is no multiple of {data}, the parts '
      f'that a batch is split into ({slice_.devices} devices of {slice_}, '
      f'NUM_PARTITIONS={parts})'
    )
  shapes = _shapes(recipe.network)
  for path, shape in shapes.items():
    axis = split_axis(path)
    if axis is not None and shape.shape[axis] % parts:
      raise RecipeError(
        f'NUM_PARTITIONS={parts} does not divide {shape.shape[axis]}, axis '
        f'{axis} of {path}'
      )
  method = _method(recipe.method)
  selects = method.score is not None
  plan = None
  if selects:
    plan = plans.make(
      method,
      shapes,
      epsilon=recipe.epsilon,
      budget=recipe.budget,
      # Only the counts are asked for; a schedule's length does not change them.
      total_steps=1,
    )
  elements = sum(_local(path, shapes[path].shape, parts) for path in shapes)
  parameters = 4 * elements
  on_host = recipe.seed_memory_kind is not None
  keeps = selects and method.schedule.keep
  budget = plan.budget if plan else 0
  return Plan(
    slice_=slice_,
    recipe=recipe,
    num_partitions=parts,
    total=sum(math.prod(shape.shape) for shape in shapes.values()),
    budget=budget,
    parameters=parameters,
    seed=parameters if selects and not on_host else 0,
    seed_on_host=parameters if selects and on_host else 0,
    inner_state=_adafactor(shapes, parts)
    if recipe.optimizer.endswith('Adafactor')
    else None,
    subset_state=elements * (int(selects and recipe.keep_first) + int(keeps)),
    gradients=parameters,
    delta=8 * budget,
  )


def smallest_partitions(
  recipe: recipes.Recipe, slice_: slices.Slice, *, room: float = 1.0
) -> int | None:
  """Returns the least NUM_PARTITIONS that fits.

  Args:
    recipe: its own NUM_PARTITIONS is not looked at.
    slice_: see `slices.parse`.
    room: how much of the device what is counted may take (fraction).

  Returns:
    A power of two; None if there is none.
  """
  parts = 1
  while parts <= slice_.devices:
    try:
      plan = of(recipe._replace(num_partitions=parts), slice_)
    except RecipeError:
      plan = None
    if plan is not None and plan.counted < room * slice_.device_bytes:
      return parts
    parts *= 2
  return None


def split_axis(path: str) -> int | None:
  """Returns the axis of a parameter that lies along the mesh's 'model'.

  Args:
    path: of the parameter.

  Returns:
    Number of the axis; None if the parameter is whole on every device.

  Example:
    >>> split_axis('encoder/layers_0/mlp/wo/kernel')
    0
  """
  for end, axis in _SPLIT:
    if path.endswith(end):
      return axis
  return None


def gib(count: int) -> str:
  """Returns bytes for people.

  Args:
    count: of bytes.

  Example:
    >>> gib(5 * 2**30), gib(3 * 2**20)
    ('5.00 GiB', '3.0 MiB')
  """
  if count >= 2**30:
    return f'{count / 2**30:.2f} GiB'
  return f'{count / 2**20:.1f} MiB'


@functools.lru_cache(maxsize=4)
def _shapes(config: NetworkConfig) -> Mapping[str, jax.ShapeDtypeStruct]:
  # The shapes of parameters do not depend on the dtype of activations.
  config = dataclasses.replace(config, dtype='float32')
  return transformer.param_shapes(config)


def _method(name: str) -> methods.Method:
  try:
    return methods.by_name(name)
  except ValueError as error:
    raise RecipeError(f'METHOD: {error}') from error


def _local(path: str, shape: tuple[int, ...], parts: int) -> int:
  axis = split_axis(path)
  return math.prod(shape) // (1 if axis is None else parts)


def _adafactor(shapes: Mapping[str, Any], parts: int) -> int:
  """Returns bytes of T5X's Adafactor without momentum, on each device."""
  count = 0
  for path, leaf in shapes.items():
    shape = leaf.shape
    # The biases of relative positions are never factored (T5X's rules).
    factored = len(shape) == 2 and not path.endswith('rel_embedding')
    if factored and min(shape) >= _FACTORED_FROM:
      # Row and column averages lie whole on every device; one entry stands for
      # each of the two arrays that are not used.
      count += int(np.sum(shape)) + 2
    else:
      count += _local(path, shape, parts) + 3
  return 4 * count
