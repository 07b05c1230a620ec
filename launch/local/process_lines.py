"""The command lines of processes that are one run, and what they need."""

import os
import pathlib
import socket
import sys
from collections.abc import Mapping, Sequence

from dst_t5x.recipes import t5x_packages

from .. import stock_mains

_DEVICES = '--xla_force_host_platform_device_count='


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
    flags: T5X's.
    processes: how many there are.
    port: of this machine, where process 0 waits for the others.
    search_paths: folders of gin files, unless the flags name folders.

  Returns:
    Programs with their arguments.

  Example:
    >>> one, two = commands(
    ...   'train', ['--gin_file=a.gin'], processes=2, port=8476,
    ...   search_paths=['gin'])
    >>> print(*two[1:4], two[-1])
    -m dst_t5x.launch.t5x_main t5x.train --process_index=1
  """
  stock = stock_mains.command_line(main, flags, search_paths=search_paths)
  if processes == 1:
    return [[sys.executable, '-m', *stock]]
  lines = []
  for index in range(processes):
    joining = [
      f'--coordinator_address=127.0.0.1:{port}',
      f'--process_count={processes}',
      f'--process_index={index}',
    ]
    if main == 'train':  # The only main that has such flags itself.
      words = [*stock, '--multiprocess_gpu', *joining]
    else:
      words = [*joining, *stock]
    lines.append([sys.executable, '-m', 'dst_t5x.launch.t5x_main', *words])
  return lines


def environment(devices: int | None, base: Mapping[str, str]) -> dict[str, str]:
  """Returns the variables that the processes get beside this one's.

  Args:
    devices: virtual CPU devices of each process (count); None leaves it the
      machine's own.
    base: this process's environment.

  Returns:
    Names and values.

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


def check_t5x() -> None:
  """Refuses to start without T5X and the two packages that it imports.

  Raises:
    ValueError: if one of them is missing.
  """
  missing = t5x_packages.missing()
  if missing:
    raise ValueError(
      f'{sys.executable} cannot import {", ".join(missing)}: clone what is '
      'missing and put it on PYTHONPATH, as gin/README.md shows'
    )


def free_port() -> int:
  """Returns the number of a port of this machine that nobody uses now.

  Returns:
    The number.
  """
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    return free.getsockname()[1]


def check_port(port: int) -> None:
  """Refuses a port on which process 0 cannot wait for the others.

  Args:
    port: its number, on this machine.

  Raises:
    ValueError: if another program uses it.
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
  """Makes empty logs; those of an earlier run are renamed to NAME.NUMBER.

  Args:
    folder: where the logs go; it is made if it does not exist.
    count: how many processes there are.

  Returns:
    The path of each process's log.

  Raises:
    OSError: if the folder cannot be written to.
  """
  folder.mkdir(parents=True, exist_ok=True)
  number = 1
  while any(folder.glob(f'process_*.log.{number}')):
    number += 1
  for path in list(folder.glob('process_*.log')):
    path.rename(path.with_name(f'{path.name}.{number}'))
  paths = [folder / f'process_{index}.log' for index in range(count)]
  for path in paths:
    path.touch(exist_ok=False)
  return paths
