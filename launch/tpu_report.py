"""What a failure leaves behind, and how to go on or to end it.

After any failure the cloud is asked what exists: what this program remembers
may be wrong, as commands fail half-way.
"""

import contextlib
import shlex
import time
from collections.abc import Iterator

import click

from dst_t5x.commands.cli import sentence
from dst_t5x.launch import (
  tpu_cloud,
  tpu_commands,
  tpu_follow,
  tpu_gcloud,
  tpu_state,
)


class Failure(click.ClickException):
  """A step failed; shown in red, with what to do."""

  exit_code = 1

  def show(self, file: object = None) -> None:
    """Prints the message to standard error."""
    del file
    click.secho(self.message, err=True, fg='red')


class PreemptedFailure(Failure):
  """The TPU was taken away; sysexits.h calls it EX_TEMPFAIL."""

  exit_code = 75


class InterruptedFailure(Failure):
  """Ctrl-C; the exit code is the one that shells give to it."""

  exit_code = 130


class Place:
  """Where a run stands, for the report if it fails there.

  Attributes:
    run: as it is now.
    go_on: subcommand that repeats the step that is being done.
  """

  def __init__(self, run: tpu_state.Run, go_on: str) -> None:
    self.run = run
    self.go_on = go_on


def command(subcommand: str, name: str) -> str:
  """Returns one of our commands as one would type it.

  Args:
    subcommand: such as 'resume'.
    name: of the run.

  Returns:
    The command.

  Example:
    >>> command('resume', 'demo')
    'python -m dst_t5x.launch.cloud_tpu resume demo'
  """
  words = ['python', '-m', 'dst_t5x.launch.cloud_tpu', subcommand, name]
  return shlex.join(words)


@contextlib.contextmanager
def reported(
  gcloud: tpu_gcloud.Gcloud, run: tpu_state.Run, go_on: str
) -> Iterator[Place]:
  """Turns an error into a report on what exists and what to do.

  Args:
    gcloud: to ask with.
    run: whose TPU.
    go_on: subcommand that repeats the step.

  Yields:
    The place, whose fields follow the steps.

  Raises:
    Failure: in place of an error or of Ctrl-C.
  """
  place = Place(run, go_on)
  try:
    yield place
  except tpu_follow.Preempted as error:
    raise PreemptedFailure(
      report(gcloud, place.run, str(error), 'resume')
    ) from error
  except (ValueError, OSError, NotImplementedError) as error:
    raise Failure(
      report(gcloud, place.run, sentence(error), place.go_on)
    ) from error
  except KeyboardInterrupt as error:
    raise InterruptedFailure(
      report(gcloud, place.run, 'interrupted', place.go_on)
    ) from error


def report(
  gcloud: tpu_gcloud.Gcloud, run: tpu_state.Run, cause: str, go_on: str
) -> str:
  """Returns what failed, what exists, and the commands for it.

  Args:
    gcloud: to ask with.
    run: whose TPU.
    cause: what went wrong.
    go_on: subcommand that goes on.

  Returns:
    Some lines.
  """
  lines = [f'cloud_tpu: {cause}', '', 'Now:', *_exists(gcloud, run)]
  lines += [
    f'Go on:  {command(go_on, run.name)}',
    f'Delete: {command("delete", run.name)}',
  ]
  if 'create' not in run.done and go_on != 'create':
    lines.insert(-1, f'Look:   {command("status", run.name)}')
  return '\n'.join(lines)


def _exists(gcloud: tpu_gcloud.Gcloud, run: tpu_state.Run) -> list[str]:
  lines, any_there = [], False
  for queue in run.kinds:
    try:
      seen = tpu_cloud.look(gcloud, run, queue=queue)
    except ValueError as error:
      kind = 'queued resource' if queue else 'TPU'
      look = gcloud.typed(tpu_commands.describe(run, queue=queue))
      first = sentence(error).splitlines()[0]
      lines += [
        f'  Whether {kind} {run.name!r} exists in {run.zone} cannot be told '
        f'({first}).',
        f'  Take it that it is billed, and look again with: {look}',
      ]
      any_there = True
    else:
      lines.append(f'  {seen}')
      any_there |= seen.state is not None
  if not any_there:
    lines.append('  Nothing of this run is billed.')
  elif run.expires:
    when = time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(run.expires))
    lines.append(f'  Its lifetime ends at {when}.')
  return lines
