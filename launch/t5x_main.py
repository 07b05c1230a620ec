"""Runs a main of T5X as one of several processes of one run.

  python -m dst_t5x.launch.t5x_main [OPTIONS] t5x.eval --gin_file=…

`t5x.train` can join other processes by flags of its own (`--multiprocess_gpu`
and those that belong to it); `t5x.eval` and `t5x.infer` cannot, and on a Cloud
TPU slice no main does so by itself. This program calls
`jax.distributed.initialize` first, and then runs the main unchanged, as
`python -m` would.

A process that fails ends at once. JAX's own exit would wait up to five minutes
for the other processes, which wait for this one in a collective.

Launchers start it; its options are spelled as T5X's. For each option there is a
variable, such as `DST_T5X_PROCESS_INDEX` for `--process_index`; the option
wins.
"""

import os
import runpy
import sys
import traceback
from typing import Any

import click


def distributed_arguments(
  auto: bool, address: str | None, count: int | None, index: int | None
) -> dict[str, Any] | None:
  """Returns the arguments of `jax.distributed.initialize`.

  Args:
    auto: whether JAX finds the other processes by itself.
    address: 'HOST:PORT' of process 0.
    count: number of processes.
    index: number of this process, counted from 0.

  Returns:
    The arguments; None if JAX is not to be initialised here.

  Raises:
    ValueError: if one of the three is missing, or they contradict each other.

  Example:
    >>> distributed_arguments(False, 'localhost:8476', 2, 1)['process_id']
    1
    >>> distributed_arguments(True, None, None, None)
    {}
  """
  given = [x for x in (address, count, index) if x is not None]
  if auto and given:
    raise ValueError(
      f'--auto lets JAX find the other processes: {given[0]} is too much'
    )
  if not given:
    return {} if auto else None
  if address is None or count is None or index is None:
    raise ValueError(
      '--coordinator_address, --process_count and --process_index belong '
      'together: give all three, or --auto'
    )
  if not 0 <= index < count:
    raise ValueError(
      f'--process_index={index} is not one of {count} processes, which are '
      'counted from 0'
    )
  return {
    'coordinator_address': address,
    'num_processes': count,
    'process_id': index,
  }


def run(module: str, flags: tuple[str, ...]) -> None:
  """Runs a module as `python -m` would; a failure ends the process at once.

  Args:
    module: its name, such as 't5x.train'.
    flags: its command line.
  """
  sys.argv = [module, *flags]
  try:
    runpy.run_module(module, run_name='__main__', alter_sys=True)
  except SystemExit as ended:
    if not ended.code:
      raise
    if not isinstance(ended.code, int):
      print(ended.code, file=sys.stderr)
    _end(ended.code if isinstance(ended.code, int) else 1)
  except BaseException:  # noqa: BLE001 (printed before the process ends)
    traceback.print_exc()
    _end(1)


def _end(code: int) -> None:
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


@click.command(
  context_settings={
    'allow_interspersed_args': False,
    'auto_envvar_prefix': 'DST_T5X',
  }
)
@click.option(
  '--auto',
  is_flag=True,
  show_envvar=True,
  help='Let JAX find the other processes, as it can on Cloud TPU and Slurm.',
)
@click.option(
  '--coordinator_address',
  metavar='HOST:PORT',
  show_envvar=True,
  help='Of process 0. Without this and --auto, the main joins no one, or does '
  'so by its own flags.',
)
@click.option('--process_count', type=int, show_envvar=True)
@click.option('--process_index', type=int, show_envvar=True)
@click.argument('module')
@click.argument('flags', nargs=-1, type=click.UNPROCESSED)
def main(
  auto: bool,
  coordinator_address: str | None,
  process_count: int | None,
  process_index: int | None,
  module: str,
  flags: tuple[str, ...],
) -> None:
  """Run MODULE, a main of T5X such as t5x.eval, with its FLAGS."""
  try:
    arguments = distributed_arguments(
      auto, coordinator_address, process_count, process_index
    )
  except ValueError as error:
    raise click.UsageError(str(error)) from error
  if arguments is not None:
    # Imported here, so that a wrong option is answered at once.
    import jax

    jax.distributed.initialize(**arguments)
  run(module, flags)


if __name__ == '__main__':
  main()
