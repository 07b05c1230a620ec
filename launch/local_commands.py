"""What the local launcher starts, and what it looks at before."""

import os
import pathlib
import socket
import sys
from collections.abc import Mapping, Sequence

from dst_t5x.recipes import t5x_packages

MAINS = ('train', 'eval', 'infer')
_DEVICES = '--xla_force_host_platform_device_count='
# The launcher's business: `t5x.train` has flags of these names.
_JOINING = (
  'multiprocess_gpu',
  'coordinator_address',
  'process_count',
  'process_index',
)


def commands(
  main: str,
  flags: Sequence[str],
  *,
  processes: int,
  port: int,
  search_paths: Sequence[str | os.PathLike[str]],
) -> list[list[str]]:
  """Returns the command line of each process.

  Args:
    main: 'train', 'eval' or 'infer'.
    flags: for T5X.
    processes: how many there are.
    port: of this machine, where process 0 waits for the others.
    search_paths: for gin files, unless the flags say it themselves.

  Returns:
    Programs with their arguments.

  Example:
    >>> one, two = commands(
    ...   'train', ['--gin_file=a.gin'], processes=2, port=8476,
    ...   search_paths=['gin'])
    >>> print(*two[1:4], two[-1])
    -m dst_t5x.launch.t5x_main t5x.train --process_index=1
  """
  module = f't5x.{main}'
  if not any(flag.startswith('--gin_search_paths') for flag in flags):
    joined = ','.join(str(path) for path in search_paths)
    flags = [f'--gin_search_paths={joined}', *flags]
  if processes == 1:
    return [[sys.executable, '-m', module, *flags]]
  found = []
  for index in range(processes):
    joining = [
      f'--coordinator_address=127.0.0.1:{port}',
      f'--process_count={processes}',
      f'--process_index={index}',
    ]
    start = [sys.executable, '-m', 'dst_t5x.launch.t5x_main']
    if main == 'train':
      found.append([*start, module, *flags, '--multiprocess_gpu', *joining])
    else:  # These two have no such flags.
      found.append([*start, *joining, module, *flags])
  return found


def environment(devices: int | None, base: Mapping[str, str]) -> dict[str, str]:
  """Returns what the processes' environment has beyond this one's.

  Args:
    devices: virtual devices of each process; None for the machine's own.
    base: this process's environment.

  Returns:
    Variables to be set.

  Example:
    >>> environment(4, {'XLA_FLAGS': '--xla_dump_to=d'})['XLA_FLAGS']
    '--xla_dump_to=d --xla_force_host_platform_device_count=4'
  """
  added = {'PYTHONUNBUFFERED': '1'}  # Logs are read while they are written.
  if devices is not None:
    kept = [
      flag
      for flag in base.get('XLA_FLAGS', '').split()
      if not flag.startswith(_DEVICES)
    ]
    added['JAX_PLATFORMS'] = 'cpu'
    added['XLA_FLAGS'] = ' '.join([*kept, f'{_DEVICES}{devices}'])
  return added


def check_flags(flags: Sequence[str]) -> None:
  """Looks at T5X's flags, as far as that saves a start in vain.

  Args:
    flags: all that came after `--`.

  Raises:
    ValueError: if there are none, or one is the launcher's to give.
  """
  if not flags:
    raise ValueError(
      "T5X's own flags are missing: give them after --, such as "
      '-- --gin_file=models/byte_tiny.gin'
    )
  for flag in flags:
    name = flag.lstrip('-').partition('=')[0]
    if flag.startswith('-') and name.removeprefix('no') in _JOINING:
      raise ValueError(
        f'--{name} is given to each process by the launcher; leave it out'
      )


def check_t5x() -> None:
  """Looks whether T5X and the two packages that it imports are there.

  Raises:
    ValueError: if not.
  """
  missing = t5x_packages.missing()
  if missing:
    raise ValueError(
      f'{sys.executable} cannot import {", ".join(missing)}: clone what is '
      "missing and put it on PYTHONPATH, as the README's 'Inside T5X' shows"
    )


def free_port() -> int:
  """Returns a port of this machine that nobody uses now.

  Returns:
    Its number.
  """
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]


def check_port(port: int) -> None:
  """Looks whether process 0 can wait for the others on a port.

  Args:
    port: of this machine.

  Raises:
    ValueError: if someone else uses it.
  """
  with socket.socket() as used:
    # A port that a run has just left is free, though the kernel remembers.
    used.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      used.bind(('127.0.0.1', port))
    except OSError as error:
      raise ValueError(
        f'--port {port} cannot be used ({error.strerror}); without --port a '
        'free one is taken'
      ) from error


def prepare_logs(folder: pathlib.Path, count: int) -> list[pathlib.Path]:
  """Makes room for logs; those of an earlier run there get a number.

  Args:
    folder: where they go; made if it is not there.
    count: how many.

  Returns:
    A path for each process; no file is at any of them.

  Raises:
    OSError: if the folder cannot be written to.
  """
  folder.mkdir(parents=True, exist_ok=True)
  old = list(folder.glob('process_*.log'))
  number = 1
  while any(folder.glob(f'process_*.log.{number}')):
    number += 1
  for path in old:
    path.rename(path.with_name(f'{path.name}.{number}'))
  paths = [folder / f'process_{index}.log' for index in range(count)]
  for path in paths:
    path.touch(exist_ok=False)
  return paths
