r"""Runs stock T5X in several processes on this machine, as on several hosts.

  python -m dst_t5x.launch.local --processes 2 --devices 4 train -- \
    --gin_file=models/byte_tiny.gin … --gin.EPSILON=0.01

After `--` come the flags that go to T5X on a pod. The processes talk through
JAX's own collectives. One that fails stops the others and is named.
"""

import datetime
import os
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from dst_t5x.commands import cli
from dst_t5x.launch import local_commands
from dst_t5x.launch import processes as watching
from dst_t5x.recipes import gin_path

_HELP = """Run a main of T5X in several processes on this machine.

T5X's flags come after --, as they go to T5X on a pod:

\b
  python -m dst_t5x.launch.local --processes 2 --devices 4 train -- \\
    --gin_file=models/byte_tiny.gin --gin_file=methods/dst.gin … \\
    --gin.EPSILON=0.01

Process 0's log is shown; every process has a file. A process that fails stops
the others; its traceback is shown and its exit code returned. Ctrl-C stops
all. The same command resumes.
"""


class _Command(click.Command):
  """Keeps T5X's flags, after `--`, from the launcher's own."""

  def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
    own, flags = args, []
    if '--' in args:
      at = args.index('--')
      own, flags = args[:at], args[at + 1 :]
    ctx.meta['t5x_flags'] = flags
    try:
      return super().parse_args(ctx, own)
    except click.NoSuchOption as error:
      if error.possibilities:
        raise
      raise click.UsageError(
        f"no option {error.option_name} here; T5X's own flags come after --",
        ctx,
      ) from error


@click.command(
  cls=_Command,
  help=_HELP,
  context_settings={'help_option_names': ['-h', '--help']},
)
@click.argument(
  'main', type=click.Choice(local_commands.MAINS), metavar='train|eval|infer'
)
@click.option(
  '--processes',
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
@click.option(
  '--dry-run', is_flag=True, help='Print the commands and start nothing.'
)
@click.pass_context
def launch(
  ctx: click.Context,
  main: str,
  processes: int,
  devices: int | None,
  logs: pathlib.Path | None,
  port: int | None,
  limit_seconds: float | None,
  dry_run: bool,
) -> None:
  """Runs a main of T5X in several processes on this machine."""
  flags = ctx.meta['t5x_flags']
  try:
    local_commands.check_flags(flags)
    if not dry_run:
      local_commands.check_t5x()
    if port is not None and not dry_run:
      local_commands.check_port(port)
    lines = local_commands.commands(
      main,
      flags,
      processes=processes,
      port=port or local_commands.free_port(),
      search_paths=gin_path.search_paths(),
    )
    added = local_commands.environment(devices, os.environ)
    if dry_run:
      for line in lines:
        settings = [f'{name}={value}' for name, value in added.items()]
        click.echo(shlex.join(['env', *settings, *line]))
      return
    if logs is None:
      now = datetime.datetime.now().strftime('%Y-%m-%d_%H-%M-%S')
      logs = pathlib.Path('t5x-logs', now)
    jobs = [
      watching.Job(line, {**os.environ, **added}, path)
      for line, path in zip(
        lines, local_commands.prepare_logs(logs, processes), strict=True
      )
    ]
    _note(f't5x.{main} in {_count(processes)}; logs in {logs}')
    outcome = watching.run(jobs, show=_Terminal().show, limit=limit_seconds)
  except (ValueError, OSError) as error:
    raise cli.UserError(cli.sentence(error)) from error
  _report(outcome, jobs, limit_seconds)


def _report(
  outcome: watching.Outcome,
  jobs: Sequence[watching.Job],
  limit: float | None,
) -> NoReturn:
  """Says how it ended, and ends likewise."""
  if outcome.code == 0:
    _note(f'{_count(len(jobs))} ended well')
    sys.exit(0)
  again = 'the same command resumes'
  if outcome.failed is not None:
    log = jobs[outcome.failed].log
    _note(watching.tail(log))
    what = f'failed with exit code {outcome.code}'
    again = f'once its cause is gone, {again}'
    if outcome.code > 128:
      what = f'was killed by signal {outcome.code - 128}'
    what = f'process {outcome.failed} {what}; its log is {log}'
  elif outcome.stopped_by is not None:
    what = f'stopped by {outcome.stopped_by.name}'
  else:
    what = f'stopped after {limit:g} seconds'
  _note(f'{what}; no process is left; {again}', red=True)
  sys.exit(outcome.code)


def _count(processes: int) -> str:
  return f'{processes} process{"es" if processes > 1 else ""}'


def _note(text: str, *, red: bool = False) -> None:
  """Prints to standard error what is the launcher's own."""
  color = 'red' if red and not os.environ.get('NO_COLOR') else None
  click.secho(text, err=True, fg=color)


class _Terminal:
  """Shows lines as long as someone reads them; the run goes on without."""

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


if __name__ == '__main__':
  launch(prog_name='python -m dst_t5x.launch.local')
