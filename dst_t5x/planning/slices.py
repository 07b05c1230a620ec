"""TPU slices: their names, chips, hosts and memory.

Cloud TPU names a slice by its accelerator type, such as 'v5p-128', which
counts TensorCores or chips; the compiler names it by its topology, such as
'v5p:4x4x4', which counts chips along each axis. Both are read here.

Source: Cloud TPU's documentation, pages "TPU v4", "TPU v5e", "TPU v5p", "TPU
v6e" and "TPU software versions"; the memory is what the compiler (libtpu
0.0.42) says that it may use, a little less than the chip has.
"""

import dataclasses
import math
import re

from dst_t5x.arrays import known_names

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class _Generation:
  # The part of an accelerator type before its number, and how many of what that
  # number counts are in a chip.
  accelerator: str
  cores: int
  runtime: str
  device_bytes: int
  topologies: tuple[tuple[int, ...], ...]


_FLAT = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_DEEP = (
  (2, 2, 1),
  (2, 2, 2),
  (2, 2, 4),
  (2, 4, 4),
  (4, 4, 4),
  (4, 4, 8),
  (4, 8, 8),
  (8, 8, 8),
  (8, 8, 16),
  (8, 16, 16),
)
_GENERATIONS = {
  'v4': _Generation('v4', 2, 'tpu-ubuntu2204-base', round(30.75 * _GIB), _DEEP),
  'v5e': _Generation(
    'v5litepod', 1, 'v2-alpha-tpuv5-lite', round(15.75 * _GIB), _FLAT
  ),
  'v5p': _Generation(
    'v5p',
    2,
    'v2-alpha-tpuv5',
    round(95.74 * _GIB),
    (*_DEEP, (16, 16, 16), (16, 16, 24)),
  ),
  'v6e': _Generation('v6e', 1, 'v2-alpha-tpuv6e', round(31.25 * _GIB), _FLAT),
}
_NAMES = {'v5litepod': 'v5e', 'v5lite': 'v5e'}


@dataclasses.dataclass(frozen=True)
class Slice:
  """A TPU slice; JAX sees each of its chips as one device.

  Attributes:
    generation: 'v4', 'v5e', 'v5p' or 'v6e'.
    topology: chips along each axis (counts).

  Example:
    >>> slice_ = parse('v5p-128')
    >>> str(slice_), slice_.chips, slice_.hosts
    ('v5p:4x4x4', 64, 16)
  """

  generation: str
  topology: tuple[int, ...]

  def __str__(self) -> str:
    """Returns the compiler's name, such as 'v5p:4x4x4'."""
    return f'{self.generation}:{"x".join(map(str, self.topology))}'

  @property
  def chips(self) -> int:
    """Number of chips."""
    return math.prod(self.topology)

  @property
  def devices(self) -> int:
    """Number of JAX devices."""
    return self.chips

  @property
  def host_chips(self) -> tuple[int, int, int]:
    """Chips of one host along each axis."""
    # In generations of two axes, a host has up to 8 chips.
    if len(self.topology) == 2 and self.chips <= 8:
      return (*self.topology, 1)  # type: ignore
    return (2, 2, 1)

  @property
  def devices_per_host(self) -> int:
    """Number of JAX devices of one host."""
    return math.prod(self.host_chips)

  @property
  def hosts(self) -> int:
    """Number of hosts, which Cloud TPU calls workers."""
    return self.chips // self.devices_per_host

  @property
  def accelerator_type(self) -> str:
    """Cloud TPU's name, such as 'v5litepod-16'."""
    kind = _GENERATIONS[self.generation]
    return f'{kind.accelerator}-{self.chips * kind.cores}'

  @property
  def runtime_version(self) -> str:
    """The version of the software that Cloud TPU boots."""
    return _GENERATIONS[self.generation].runtime

  @property
  def device_bytes(self) -> int:
    """Memory of one device that a program may use (bytes)."""
    return _GENERATIONS[self.generation].device_bytes


def parse(text: str) -> Slice:
  """Returns the slice that an accelerator type or a topology names.

  Args:
    text: such as 'v5p-128', 'v5e-16', 'v5litepod-16' or 'v5p:4x4x4'.

  Returns:
    The slice.

  Raises:
    ValueError: if there is no such slice; the message lists all.

  Example:
    >>> parse('v5e-16').accelerator_type
    'v5litepod-16'
    >>> parse('v4:2x2x1').accelerator_type
    'v4-8'
  """
  match = re.fullmatch(r'([a-z0-9]+)(?:-(\d+)|:(\d+(?:x\d+)*))', text)
  if not match:
    raise ValueError(
      f'{text!r} is no TPU slice: give an accelerator type, such as v5p-128, '
      'or a topology, such as v5p:4x4x4'
    )
  name, cores, shape = match.groups()
  name = _NAMES.get(name, name)
  if name not in _GENERATIONS:
    near = known_names.nearest(name, _GENERATIONS)
    hint = f'did you mean {near[0]}? ' if near else ''
    raise ValueError(
      f'{text!r}: no TPU generation {name!r}; {hint}'
      f'there are {", ".join(_GENERATIONS)}'
    )
  known = [Slice(name, topology) for topology in _GENERATIONS[name].topologies]
  for slice_ in known:
    accelerator_type = slice_.accelerator_type
    if cores is not None and accelerator_type.endswith(f'-{int(cores)}'):
      return slice_
    if shape is not None and str(slice_) == f'{name}:{shape}':
      return slice_
  names = [
    slice_.accelerator_type if shape is None else str(slice_)
    for slice_ in known
  ]
  raise ValueError(f'{text!r} is no slice; {name} has {", ".join(names)}')
