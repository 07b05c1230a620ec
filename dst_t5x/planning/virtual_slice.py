"""A TPU slice that is not there: devices to compile for.

Only in a process of its own, begun with `environment`: libtpu reads its
settings once, and JAX would otherwise look for a real TPU.
"""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import jax

from dst_t5x.planning.slices import Slice
from dst_t5x.recipes import t5x_packages


def missing() -> str | None:
  """Returns why nothing can be compiled for a TPU here; None if it can.

  Returns:
    A sentence's end, such as 'libtpu is not installed …'.
  """
  if importlib.util.find_spec('libtpu') is None:
    return 'libtpu is not installed (pip install libtpu, or the extra tpu)'
  absent = t5x_packages.missing()
  if absent:
    return f'{", ".join(absent)} cannot be imported'
  return None


def environment() -> dict[str, str]:
  """Returns the environment of a process that compiles for a slice."""
  return {
    **os.environ,
    # Modules that only this process's path finds, such as libtpu's folder.
    'PYTHONPATH': os.pathsep.join(path for path in sys.path if path),
    'JAX_PLATFORMS': 'cpu',
    # What libtpu would otherwise ask the machine that it runs on.
    'TPU_SKIP_MDS_QUERY': '1',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'TPU_ACCELERATOR_TYPE': 'v5e-16',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TF_CPP_MIN_LOG_LEVEL': '2',
  }


def devices(slice_: Slice) -> Sequence[Any]:
  """Returns devices of a slice that can be compiled for.

  Args:
    slice_: see `slices.parse`.

  Returns:
    JAX's descriptions of devices.

  Raises:
    RuntimeError: if libtpu does not know the slice.
  """
  from jax.experimental import topologies

  options: dict[str, Any] = {'chips_per_host_bounds': slice_.host_chips}
  if slice_.generation == 'v4':
    # As on Cloud TPU: both cores of a chip are one device.
    options['chip_config_name'] = 'megacore'
  found = topologies.get_topology_desc(
    platform='tpu', topology_name=str(slice_), **options
  ).devices
  if len(found) != slice_.devices:
    raise RuntimeError(
      f'libtpu makes {len(found)} devices of {slice_}, not {slice_.devices}'
    )
  return found


@contextlib.contextmanager
def as_if_on(found: Sequence[Any]) -> Iterator[None]:
  """Answers questions for JAX's devices as the first host of a slice would.

  T5X and Flax ask them while they trace: on a CPU they leave out the
  constraints on where activations lie, and build another mesh.

  Args:
    found: see `devices`.
  """
  local = [each for each in found if each.process_index == 0]
  hosts = len({each.process_index for each in found})
  with (
    mock.patch.object(jax, 'devices', lambda backend=None: list(found)),
    mock.patch.object(
      jax, 'local_devices', lambda *args, **options: list(local)
    ),
    mock.patch.object(jax, 'device_count', lambda backend=None: len(found)),
    mock.patch.object(
      jax, 'local_device_count', lambda backend=None: len(local)
    ),
    mock.patch.object(jax, 'process_count', lambda backend=None: hosts),
    mock.patch.object(jax, 'default_backend', lambda: 'tpu'),
  ):
    yield
