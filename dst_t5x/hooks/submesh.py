"""Which devices of a TPU slice share a model, where T5X has no default.

T5X knows the slices of TPU v2 to v4; on later ones `num_partitions` alone is an
error there, even 1.
"""

import itertools
import math
from collections.abc import Sequence

# Device kinds that T5X has defaults for.
KNOWN_TO_T5X = ('TPU v2', 'TPU v3', 'TPU v4', 'TPU v4 lite')


def choose(
  num_partitions: int, bounds: Sequence[int], *, kind: str
) -> tuple[int, ...]:
  """Returns the part of a slice that holds one copy of the model.

  A whole axis whose ends are linked is a ring, which collectives are fastest
  on; otherwise the most compact box.

  Args:
    num_partitions: devices in it (count).
    bounds: devices along x, y and z, and cores of a chip (counts).
    kind: of the devices, as JAX says it.

  Returns:
    Counts along x, y, z and core.

  Raises:
    ValueError: if no box of the slice has so many devices.

  Example:
    >>> choose(4, (4, 4, 4, 1), kind='TPU v5')
    (4, 1, 1, 1)
    >>> choose(4, (4, 4, 1, 1), kind='TPU v5 lite')
    (2, 2, 1, 1)

  Source: Cloud TPU's documentation, "TPU architecture": slices of whole cubes
    of 4×4×4 are tori; of the flat generations, axes of 16 are rings.
  """
  boxes = [
    box
    for box in itertools.product(*map(_divisors, bounds))
    if math.prod(box) == num_partitions
  ]
  if not boxes:
    raise ValueError(
      f'num_partitions={num_partitions}: no box of so many devices divides the '
      f'slice of {"×".join(map(str, bounds))} ({kind}); give '
      'model_parallel_submesh instead, or another number'
    )
  flat = kind.endswith('lite')
  closed = [
    size == 16 if flat else min(bounds[:3]) >= 4 and size % 4 == 0
    for size in bounds
  ]

  def rank(box: Sequence[int]) -> tuple[bool, int, tuple[int, ...]]:
    long = [axis for axis, size in enumerate(box) if size > 1]
    ring = (
      len(long) == 1 and box[long[0]] == bounds[long[0]] and closed[long[0]]
    )
    return not ring, sum(box), tuple(-size for size in box)

  return min(boxes, key=rank)


def _divisors(number: int) -> list[int]:
  return [each for each in range(1, number + 1) if number % each == 0]
