"""`dst-t5x launch local`: stock T5X in several processes, as on several hosts.

The processes talk through JAX's own collectives.
"""

import datetime
import os
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from dst_t5x.recipes import gin_path

from .. import launch_options, stock_mains
from . import process_lines, processes

_HELP = """Run a main of T5X in several processes on this machine.

T5X's flags come after --, as they go to T5X on a pod:

\b
  dst-t5x launch local --processes 2 --devices 4 train -- \\
    --gin_file=models/byte_tiny.gin --gin_file=methods/dst.gin … \\
    --gin.EPSILON=0.01

Process 0's log is shown; every process has a file. A process that fails stops
the others; its traceback is shown and its exit code returned. Ctrl-C stops
all. The same command resumes.
"""


@click.command(cls=launch_options.T5XCommand, help=_HELP)
@launch_options.main_argument
@click.option(
  '--processes',
  'count',
  type=click.IntRange(1, 256),
  default=2,
  show_default=True,
  help='How many processes of T5X.',
)
@click.option(
  '--devices',
  type=click.IntRange(1, 1024),
  help="Virtual CPU devices of each; without it, this machine's own devices.",
)
@click.option(
  '--logs',
  'folder',
  type=click.Path(path_type=pathlib.Path),
  metavar='DIR',
  help='Where each process has its log.  [default: t5x-logs/<date and time>]',
)
@click.option(
  '--port',
  type=click.IntRange(1, 65535),
  help='Where process 0 waits for the others.  [default: a free one]',
)
@click.option(
  '--limit-seconds',
  type=click.FloatRange(0, min_open=True),
  metavar='S',
  help='Stop everything after this time, with exit code 124.',
)
@launch_options.dry_run
def local(
  main: str,
  count: int,
  devices: int | None,
  folder: pathlib.Path | None,
  port: int | None,
  limit_seconds: float | None,
  dry_run: bool,
  flags: tuple[str, ...],
) -> None:
  """Runs a main of T5X in several processes on this machine."""
  stock_mains.check_flags(flags)
  if not dry_run:
    process_lines.check_t5x()
    if port is not None:
      process_lines.check_port(port)
  lines = process_lines.commands(
    main,
    flags,
    processes=count,
    port=port or process_lines.free_port(),
    search_paths=gin_path.search_paths(),
  )
  added = process_lines.environment(devices, os.environ)
  if dry_run:
    settings = [f'{name}={value}' for name, value in added.items()]
    for line in lines:
      click.echo(shlex.join(['env', *settings, *line]))
    return
  if folder is None:
    now = datetime.datetime.now().strftime('%Y-%m-%d_%H-%M-%S')
    folder = pathlib.Path('t5x-logs', now)
  logs = process_lines.prepare_logs(folder, count)
  jobs = [
    processes.Job(line, {**os.environ, **added}, log)
    for line, log in zip(lines, logs, strict=True)
  ]
  _note(f't5x.{main} in {_in_words(count)}; logs in {folder}')
  outcome = processes.run(jobs, show=_Terminal().show, limit=limit_seconds)
  _report(outcome, jobs, limit_seconds)


def _report(
  outcome: processes.Outcome,
  jobs: Sequence[processes.Job],
  limit: float | None,
) -> NoReturn:
  """Says how the run ended, and ends with its exit code."""
  if outcome.code == 0:
    _note(f'{_in_words(len(jobs))} ended well')
    sys.exit(0)
  advice = 'the same command resumes'
  if outcome.failed is not None:
    log = jobs[outcome.failed].log
    _note(processes.tail(log))
    end = f'failed with exit code {outcome.code}'
    advice = f'once its cause is gone, {advice}'
    if outcome.code > 128:
      end = f'was killed by signal {outcome.code - 128}'
    end = f'process {outcome.failed} {end}; its log is {log}'
  elif outcome.stopped_by is not None:
    end = f'stopped by {outcome.stopped_by.name}'
  else:
    end = f'stopped after {limit:g} seconds'
  _note(f'{end}; no process is left; {advice}', red=True)
  sys.exit(outcome.code)


def _in_words(count: int) -> str:
  return f'{count} process{"es" if count > 1 else ""}'


def _note(text: str, *, red: bool = False) -> None:
  """Prints what the launcher itself has to say to standard error."""
  color = 'red' if red and not os.environ.get('NO_COLOR') else None
  click.secho(text, err=True, fg=color)


class _Terminal:
  """Shows lines as long as someone reads them.

  The run goes on when standard output is closed, as by `| head`.
  """

  def __init__(self) -> None:
    self._open = True

  def show(self, line: str) -> None:
    if not self._open:
      return
    try:
      click.echo(line)
    except BrokenPipeError:
      self._open = False
      # What is left in the buffer must not fail again at the end.
      os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
