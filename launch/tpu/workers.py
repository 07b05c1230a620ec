"""Runs a script on the workers of a TPU, and names those that fail."""

import re
import shutil
from collections.abc import Sequence

from dst_t5x.planning import slices

from .gcloud import CommandFailed
from .session import Session

_TAIL = 25


class WorkersFailed(ValueError):
  """Some workers did not carry out their script; the message names them."""


class Unreachable(ValueError):
  """The workers could not be reached, or not all of them answered."""


def collect(
  session: Session, args: Sequence[str], *, quiet: bool = False
) -> dict[int, str]:
  """Runs an ssh command and collects what every worker printed.

  Args:
    session: the run.
    args: arguments of gcloud, from `command_lines.ssh`.
    quiet: do not show the command.

  Returns:
    Worker → its whole output.

  Raises:
    Unreachable: if the command failed and a worker printed nothing.
    ValueError: if gcloud cannot be run.
  """
  outputs, error = _outputs(session, args, quiet=quiet)
  if error is not None and len(outputs) < _count(session, args):
    raise Unreachable(str(error)) from error
  return outputs


def run_all(session: Session, args: Sequence[str], sign: str) -> dict[int, str]:
  """Runs an ssh command of which every worker must print a certain line.

  Args:
    session: the run.
    args: arguments of gcloud, from `command_lines.ssh`.
    sign: the line by which a worker says that it is done: a regular expression,
      in which {worker} stands for the worker's number.

  Returns:
    Worker → its whole output.

  Raises:
    WorkersFailed: if a worker did not print it; with the end of its output.
    ValueError: if gcloud cannot be run.
  """
  outputs, error = _outputs(session, args, quiet=False)
  count = _count(session, args)
  failed = [
    worker
    for worker in range(count)
    if not re.search(
      rf'^{sign.format(worker=worker)}$', outputs.get(worker, ''), re.M
    )
  ]
  if failed:
    ends = (tail(worker, outputs.get(worker, '')) for worker in failed)
    lines = [f'{in_words(failed)} of {count} failed', *ends]
    raise WorkersFailed('\n'.join([*lines, str(error)] if error else lines))
  # All workers are done, so that an error of gcloud does not matter.
  return outputs


def in_words(workers: Sequence[int]) -> str:
  """Returns the numbers of workers in words.

  Example:
    >>> in_words([1]), in_words([0, 2])
    ('worker 1', 'workers 0, 2')
  """
  plural = 's' if len(workers) > 1 else ''
  return f'worker{plural} {", ".join(map(str, workers))}'


def tail(worker: int, text: str) -> str:
  """Returns the end of what a worker printed, for a message.

  Args:
    worker: its number.
    text: its output.

  Returns:
    Indented lines below a first one that names the worker.

  Example:
    >>> print(tail(1, 'no space left'))
    worker 1 said:
      no space left
  """
  lines = text.rstrip().splitlines()[-_TAIL:]
  if not lines:
    return f'worker {worker} said nothing'
  return '\n'.join([f'worker {worker} said:', *(f'  {x}' for x in lines)])


def _count(session: Session, args: Sequence[str]) -> int:
  """Returns how many workers a command goes to."""
  if '--worker=all' not in args:
    return 1
  return slices.parse(session.run.accelerator).hosts


def _outputs(
  session: Session, args: Sequence[str], *, quiet: bool
) -> tuple[dict[int, str], CommandFailed | None]:
  folder = session.run.folder / 'said'
  # What an earlier command left must not be taken for an answer.
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  failure = None
  try:
    session.gcloud.call(args, quiet=quiet)
  except CommandFailed as error:
    failure = error
  outputs = {
    int(file.stem): file.read_text('utf-8', errors='replace')
    for file in folder.glob('*.log')
    if file.stem.isdigit()
  }
  return outputs, failure
