"""A run that is being worked on, and the report if that fails.

After any failure the cloud is asked what exists: the state file may be wrong,
because a command can fail half-way.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import click

from dst_t5x.commands.cli import sentence

from . import command_lines, resources, state_file
from .gcloud import CommandFailed, Gcloud
from .resources import Preempted, Resource
from .state_file import Run


class Failure(click.ClickException):
  """A step failed; the message says what exists and what to do."""

  def show(self, file: object = None) -> None:
    """Prints the message in red to standard error."""
    del file
    click.secho(self.message, err=True, fg='red')


class PreemptedFailure(Failure):
  """The TPU was taken away."""

  exit_code = 75  # EX_TEMPFAIL of sysexits.h


class InterruptedFailure(Failure):
  """Somebody pressed Ctrl-C."""

  exit_code = 130  # As shells have it.


@dataclasses.dataclass
class Session:
  """A run, and how it is worked on.

  Attributes:
    gcloud: the program.
    run: as the state file has it now.
    poll: time between two looks at something that takes minutes (seconds).
    max_preemptions: how often the run goes on by itself (count).
    go_on: subcommand that does again what may fail now.
    force: delete a TPU although this program did not make it.
    out: where the delta is put; None for a name made of the run's.
  """

  gcloud: Gcloud
  run: Run
  poll: float = 20.0
  max_preemptions: int = 0
  go_on: str = 'resume'
  force: bool = False
  out: str | None = None

  @property
  def delta_file(self) -> str:
    """The file that the delta is fetched to."""
    return self.out or f'{self.run.name}.delta.safetensors'

  def update(self, **changes: Any) -> None:
    """Changes fields of the run, in the state file as well."""
    self.run = state_file.update(self.run, **changes)

  def look(self, *, queue: bool = False) -> Resource:
    """Asks the cloud for the TPU, or for the queued resource.

    Raises:
      CommandFailed: if the cloud does not answer.
    """
    run = self.run
    try:
      content = self.gcloud.json(command_lines.describe(run, queue=queue))
    except CommandFailed as error:
      if error.not_found:
        return Resource(queue, run.name, run.zone, None, {})
      raise
    return resources.read(content, run.zone, queue=queue)

  def look_all(self) -> list[Resource]:
    """Asks for all that the run may have made, a queued resource first.

    Raises:
      CommandFailed: if the cloud does not answer.
    """
    return [self.look(queue=queue) for queue in self.run.kinds]

  def check_there(self) -> None:
    """Raises an error if the cloud took the TPU away, which was there before.

    Raises:
      Preempted: if the TPU or the queued resource is lost.
      CommandFailed: if the cloud does not answer.
    """
    existing = self.look_all()
    if any(each.lost for each in existing):
      sentences = ' '.join(map(str, existing))
      raise Preempted(f'the TPU was preempted or ended: {sentences}')

  @contextlib.contextmanager
  def reported(self) -> Iterator[None]:
    """Turns an error into a report on what exists and what to do.

    Raises:
      Failure: in place of an error or of Ctrl-C.
    """
    try:
      yield
    except Preempted as error:
      self.go_on = 'resume'
      raise PreemptedFailure(self.report(str(error))) from error
    except (ValueError, OSError, NotImplementedError) as error:
      raise Failure(self.report(sentence(error))) from error
    except KeyboardInterrupt as error:
      raise InterruptedFailure(self.report('interrupted')) from error

  def report(self, cause: str) -> str:
    """Returns what failed, what exists, and the commands for it.

    Args:
      cause: what went wrong.

    Returns:
      Lines.
    """
    name = self.run.name
    lines = [f'dst-t5x: {cause}', '', 'Now:', *self._existing()]
    lines.append(f'Go on:  {our_command(self.go_on, name)}')
    if 'create' not in self.run.done and self.go_on != 'create':
      lines.append(f'Look:   {our_command("status", name)}')
    lines.append(f'Delete: {our_command("delete", name)}')
    return '\n'.join(lines)

  def _existing(self) -> list[str]:
    run, lines, is_any_there = self.run, [], False
    for queue in run.kinds:
      try:
        resource = self.look(queue=queue)
      except ValueError as error:
        kind = 'queued resource' if queue else 'TPU'
        look = self.gcloud.typed(command_lines.describe(run, queue=queue))
        first = sentence(error).splitlines()[0]
        lines += [
          f'  Whether {kind} {run.name!r} exists in {run.zone} cannot be told '
          f'({first}).',
          f'  Take it that it is billed, and look again with: {look}',
        ]
        is_any_there = True
      else:
        lines.append(f'  {resource}')
        is_any_there |= resource.state is not None
    if not is_any_there:
      lines.append('  Nothing of this run is billed.')
    elif run.expires:
      end = time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(run.expires))
      lines.append(f'  Its lifetime ends at {end}.')
    return lines


def our_command(subcommand: str, name: str) -> str:
  """Returns one of our commands as one would type it.

  Args:
    subcommand: such as 'resume'.
    name: of the run.

  Example:
    >>> our_command('resume', 'demo')
    'dst-t5x launch tpu resume demo'
  """
  return f'dst-t5x launch tpu {subcommand} {name}'
