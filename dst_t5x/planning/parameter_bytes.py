"""How T5X lays parameters and Adafactor's state out on a mesh, in counts."""

import math
from collections.abc import Mapping

import jax
import numpy as np

from dst_t5x.recipes.gin_flags import RecipeError

# Which axis of a parameter T5X's standard rules split over 'model', by the end
# of its path: they map vocab, mlp, heads and joined_kv to it, and leave embed,
# relpos_buckets and norms whole.
_SPLIT_AXES = (
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


def split_axis(path: str) -> int | None:
  """Returns the axis of a parameter that lies along the mesh's 'model'.

  Args:
    path: of the parameter.

  Returns:
    Number of the axis; None if every device has the whole parameter.

  Example:
    >>> split_axis('encoder/layers_0/mlp/wo/kernel')
    0
  """
  for end, axis in _SPLIT_AXES:
    if path.endswith(end):
      return axis
  return None


def check_split(
  shapes: Mapping[str, jax.ShapeDtypeStruct], num_partitions: int
) -> None:
  """Refuses a number of partitions that does not divide every split axis.

  Args:
    shapes: of the parameters, by path.
    num_partitions: ways that each parameter is split (count).

  Raises:
    RecipeError: if an axis cannot be split so; it names the parameter.
  """
  for path, leaf in shapes.items():
    axis = split_axis(path)
    if axis is not None and leaf.shape[axis] % num_partitions:
      raise RecipeError(
        f'NUM_PARTITIONS={num_partitions} does not divide {leaf.shape[axis]}, '
        f'axis {axis} of {path}'
      )


def numbers_per_device(
  shapes: Mapping[str, jax.ShapeDtypeStruct], num_partitions: int
) -> int:
  """Returns how many numbers of the parameters each device holds.

  Args:
    shapes: of the parameters, by path.
    num_partitions: ways that each parameter is split (count).

  Returns:
    Count of numbers.

  Example:
    >>> shapes = {
    ...   'decoder/logits_dense/kernel': jax.ShapeDtypeStruct((4, 8), 'float32')
    ... }
    >>> numbers_per_device(shapes, 2)
    16
  """
  return sum(
    _numbers(path, leaf.shape, num_partitions) for path, leaf in shapes.items()
  )


def adafactor_bytes(
  shapes: Mapping[str, jax.ShapeDtypeStruct], num_partitions: int
) -> int:
  """Returns what T5X's Adafactor without momentum keeps on each device.

  Args:
    shapes: of the parameters, by path.
    num_partitions: ways that each parameter is split (count).

  Returns:
    Bytes of float32 averages, and of a single number for each of Adafactor's
    arrays that a parameter does not use.

  Example:
    >>> shape = jax.ShapeDtypeStruct((256, 128), 'float32')
    >>> shapes = {'encoder/layers_0/mlp/wo/kernel': shape}
    >>> adafactor_bytes(shapes, 2)  # 256 rows, 128 columns, 2 single numbers
    1544
  """
  numbers = 0
  for path, leaf in shapes.items():
    shape = leaf.shape
    # The biases of relative positions are never factored (T5X's rules).
    factored = len(shape) == 2 and not path.endswith('rel_embedding')
    if factored and min(shape) >= _FACTORED_FROM:
      # Row and column averages lie whole on every device.
      numbers += int(np.sum(shape)) + 2
    else:
      numbers += _numbers(path, shape, num_partitions) + 3
  return 4 * numbers


def _numbers(path: str, shape: tuple[int, ...], num_partitions: int) -> int:
  divisor = 1 if split_axis(path) is None else num_partitions
  return math.prod(shape) // divisor
