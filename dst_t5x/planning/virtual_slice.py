"""A TPU slice that is not there: devices to compile for.

To be used in a process of its own, started with `environment`: libtpu reads
its settings only once, and without them JAX would look for a real TPU.
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import jax

from dst_t5x.planning import tpu_compiler
from dst_t5x.planning.slices import Slice
from dst_t5x.planning.tpu_compiler import TPUCompiler
from dst_t5x.recipes import t5x_packages


def missing(compiler: TPUCompiler | None) -> str | None:
  """Returns why nothing can be compiled for a TPU here; None if it can.

  Args:
    compiler: see `tpu_compiler.find`.

  Returns:
    A clause for a message, such as 'libtpu is not there …'.
  """
  if compiler is None:
    return f'libtpu is not there ({tpu_compiler.install()})'
  absent = t5x_packages.missing()
  if absent:
    return f'{", ".join(absent)} cannot be imported'
  return None


def environment(compiler: TPUCompiler) -> dict[str, str]:
  """Returns the environment of a process that compiles for a slice.

  Args:
    compiler: see `tpu_compiler.find`.

  Returns:
    All variables; no other libtpu is found before this one.
  """
  # The new process is to find the same modules.
  folders = [path for path in sys.path if path]
  if compiler.folder is not None:
    folders.insert(0, compiler.folder)
  variables = {
    **os.environ,
    'PYTHONPATH': os.pathsep.join(folders),
    'JAX_PLATFORMS': 'cpu',
    # Without these, libtpu asks the machine whether it has a TPU.
    'TPU_SKIP_MDS_QUERY': '1',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'TPU_ACCELERATOR_TYPE': 'v5e-16',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TF_CPP_MIN_LOG_LEVEL': '2',
  }
  # JAX would load this file instead.
  variables.pop('TPU_LIBRARY_PATH', None)
  return variables


def devices(slice_: Slice) -> Sequence[Any]:
  """Returns devices of a slice that can be compiled for.

  Args:
    slice_: the slice; see `slices.parse`.

  Returns:
    JAX's descriptions of the slice's devices.

  Raises:
    RuntimeError: if libtpu does not know the slice.
  """
  from jax.experimental import topologies

  options: dict[str, Any] = {'chips_per_host_bounds': slice_.host_chips}
  if slice_.generation == 'v4':
    # As on Cloud TPU: both cores of a chip are one device.
    options['chip_config_name'] = 'megacore'
  described = topologies.get_topology_desc(
    platform='tpu', topology_name=str(slice_), **options
  ).devices
  if len(described) != slice_.devices:
    raise RuntimeError(
      f'libtpu makes {len(described)} devices of {slice_}, not {slice_.devices}'
    )
  return described


@contextlib.contextmanager
def as_if_on(slice_devices: Sequence[Any]) -> Iterator[None]:
  """Lets JAX name the devices that it would name on the slice's first host.

  T5X and Flax ask for them while they trace: for a CPU they would leave out the
  constraints on where activations lie, and build another mesh.

  Args:
    slice_devices: see `devices`.
  """
  hosts = {device.process_index for device in slice_devices}
  local = [device for device in slice_devices if device.process_index == 0]
  with (
    mock.patch.object(jax, 'devices', lambda backend=None: list(slice_devices)),
    mock.patch.object(
      jax, 'local_devices', lambda *args, **options: list(local)
    ),
    mock.patch.object(
      jax, 'device_count', lambda backend=None: len(slice_devices)
    ),
    mock.patch.object(
      jax, 'local_device_count', lambda backend=None: len(local)
    ),
    mock.patch.object(jax, 'process_count', lambda backend=None: len(hosts)),
    mock.patch.object(jax, 'default_backend', lambda: 'tpu'),
  ):
    yield
