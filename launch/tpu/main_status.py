"""How a main is doing on the workers, which run it without a connection."""

import collections
import re
import time
from collections.abc import Mapping
from typing import NamedTuple

import click

from . import command_lines, workers
from .session import Session

# How often in a row workers may not answer although the TPU is there.
PATIENCE = 30
# How much of the log status.sh prints at once (bytes).
_PART = 1_000_000


class MainFailed(ValueError):
  """The main failed on a worker; the message quotes the end of its log."""


class Status(NamedTuple):
  """How the main is doing on one worker.

  Attributes:
    state: 'running', 'exited:N', 'lost' or 'absent', as status.sh explains.
    offset: how much of the log has been read, `log` included (bytes).
    log: the part of the log that is new.
  """

  state: str
  offset: int
  log: str

  @property
  def running(self) -> bool:
    """Whether the main is running."""
    return self.state == 'running'

  @property
  def good(self) -> bool:
    """Whether the main is running, or ended well."""
    return self.state in ('running', 'exited:0')


def parse(outputs: Mapping[int, str]) -> dict[int, Status]:
  r"""Reads what status.sh printed.

  Args:
    outputs: worker → its output.

  Returns:
    Worker → its status, without the workers that printed none.

  Example:
    >>> parse({0: 'Warning: x\ndst_t5x worker 0 running 9\nstep 1\n'})[0]
    Status(state='running', offset=9, log='step 1\n')
  """
  statuses = {}
  for worker, text in sorted(outputs.items()):
    # ssh itself may have printed something before it.
    match = re.search(rf'^dst_t5x worker {worker} (\S+) (\d+)\n', text, re.M)
    if match:
      log = text[match.end() :]
      statuses[worker] = Status(match[1], int(match[2]), log)
  return statuses


def ask(session: Session, offset: int = 0) -> dict[int, Status]:
  """Asks all workers once.

  Args:
    session: the run.
    offset: how much of worker 0's log has been read (bytes).

  Returns:
    Worker → its status, for all workers.

  Raises:
    Unreachable: if a worker did not answer.
    ValueError: if gcloud cannot be run.
  """
  args = command_lines.script(session.run, 'status.sh', str(offset))
  outputs = workers.collect(session, args, quiet=True)
  statuses = parse(outputs)
  silent = sorted(set(outputs) - set(statuses))
  if silent or not statuses:
    raise workers.Unreachable(
      f'{workers.in_words(silent or [0])} did not answer: '
      + ' '.join(outputs.get(each, '').strip() for each in silent)
    )
  return statuses


def follow(session: Session) -> None:
  """Prints worker 0's log until the main has ended well on all workers.

  A connection may break at any time: the next look finds the main again.

  Raises:
    MainFailed: if it failed on a worker; it is then stopped on the others.
    Preempted: if the TPU is gone.
    Unreachable: if the TPU is there, but its workers do not answer.
    ValueError: if the cloud does not say whether the TPU is there.
  """
  offset, silent = 0, 0
  last = collections.deque(maxlen=60)  # Lines of worker 0, for an error.
  while True:
    try:
      statuses = ask(session, offset)
    except workers.Unreachable as error:
      silent += 1
      session.check_there()
      if silent >= PATIENCE:
        raise
      first = str(error).splitlines()[0]
      note(f'no answer ({first}), but the TPU is there: asking again')
      time.sleep(session.poll)
      continue
    silent = 0
    log = statuses[0].log
    is_full = statuses[0].offset - offset >= _PART
    offset = statuses[0].offset
    if log:
      click.echo(log, nl=False)
      last.extend(log.splitlines())
    if is_full:  # There is more to read.
      continue
    if not all(each.good for each in statuses.values()):
      raise _failure(session, statuses, '\n'.join(last))
    if not any(each.running for each in statuses.values()):
      return
    time.sleep(session.poll)


def stop(session: Session) -> None:
  """Stops the main on all workers, if it is running.

  Raises:
    ValueError: if it could not be stopped on a worker.
  """
  args = command_lines.script(session.run, 'stop.sh')
  workers.run_all(session, args, 'dst_t5x worker {worker} stopped')


def note(text: str) -> None:
  """Prints a remark to standard error.

  Args:
    text: what to print.
  """
  click.secho(text, err=True, fg='yellow')


def _failure(
  session: Session, statuses: Mapping[int, Status], last: str
) -> MainFailed:
  """Stops the main where it still runs, and returns the error to raise."""
  bad = [worker for worker, each in statuses.items() if not each.good]
  states = [f'worker {each}: {_in_words(statuses[each].state)}' for each in bad]
  message = f't5x.{session.run.main} failed on {workers.in_words(bad)} of '
  message += f'{len(statuses)} ({"; ".join(states)})'
  for worker in bad:
    # Worker 0's log was printed piece by piece.
    text = last if worker == 0 else statuses[worker].log
    message += f'\n{workers.tail(worker, text)}'
  others = [worker for worker, each in statuses.items() if each.running]
  if others:
    try:
      stop(session)
      message += f'\nIt was stopped on {workers.in_words(others)}.'
    except ValueError as error:
      message += f'\nStopping it on {workers.in_words(others)} failed: {error}'
  return MainFailed(message)


def _in_words(state: str) -> str:
  return {
    'lost': 'it is gone without an exit status, as after a restart',
    'absent': 'it was never started',
  }.get(state, state.replace('exited:', 'exit status '))
