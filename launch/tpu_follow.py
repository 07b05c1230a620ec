"""Follows a main on all workers until it ends, or the TPU does.

The connection may break at any time without harm: the main does not hang on it.
"""

import collections
import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from dst_t5x.launch import (
  tpu_cloud,
  tpu_commands,
  tpu_gcloud,
  tpu_state,
  tpu_workers,
)

# How often in a row workers may not answer while the TPU is said to be ready.
PATIENCE = 30
# As many bytes of the log as status.sh gives at once.
_PART = 1_000_000


class Preempted(ValueError):
  """The cloud took the TPU away."""


class MainFailed(ValueError):
  """The main failed on a worker; the message has the end of its log."""


class Status(NamedTuple):
  """What a worker says of its main.

  Attributes:
    state: 'running', 'exited:N', 'lost' or 'absent'.
    offset: how much of the log has been sent, with this (bytes).
    log: what is new in it.
  """

  state: str
  offset: int
  log: str

  @property
  def running(self) -> bool:
    """Whether the main goes on."""
    return self.state == 'running'

  @property
  def good(self) -> bool:
    """Whether the main goes on, or ended well."""
    return self.state in ('running', 'exited:0')


def parse(said: Mapping[int, str]) -> dict[int, Status]:
  r"""Reads what workers said of themselves.

  Args:
    said: worker → output of status.sh.

  Returns:
    Worker → its status; workers that said nothing of the kind are left out.

  Example:
    >>> parse({0: 'Warning: x\ndst_t5x worker 0 running 9\nstep 1\n'})[0]
    Status(state='running', offset=9, log='step 1\n')
  """
  result = {}
  for worker, text in sorted(said.items()):
    # What ssh itself has to say may come first.
    match = re.search(rf'^dst_t5x worker {worker} (\S+) (\d+)\n', text, re.M)
    if match:
      log = text[match.end() :]
      result[worker] = Status(match[1], int(match[2]), log)
  return result


def ask(
  gcloud: tpu_gcloud.Gcloud, run: tpu_state.Run, offset: int = 0
) -> dict[int, Status]:
  """Asks all workers once.

  Args:
    gcloud: to run the command with.
    run: whose TPU.
    offset: how much of worker 0's log is known (bytes).

  Returns:
    Worker → its status, for all of them.

  Raises:
    Unreachable: if a worker did not answer.
    ValueError: if gcloud cannot be run.
  """
  said = tpu_workers.run(
    gcloud, run, tpu_commands.poll(run, offset), quiet=True
  )
  found = parse(said)
  silent = sorted(set(said) - set(found))
  if silent or not found:
    raise tpu_workers.Unreachable(
      f'{tpu_workers.named(silent or [0])} did not answer: '
      + ' '.join(said.get(each, '').strip() for each in silent)
    )
  return found


def follow(
  gcloud: tpu_gcloud.Gcloud,
  run: tpu_state.Run,
  *,
  write: Callable[[str], None],
  note: Callable[[str], None],
  poll: float,
  sleep: Callable[[float], None] = time.sleep,
) -> None:
  """Shows worker 0's log until the main has ended well on all workers.

  Args:
    gcloud: to run commands with.
    run: whose TPU.
    write: takes pieces of the log.
    note: takes remarks on the connection.
    poll: between two looks (seconds).
    sleep: waits.

  Raises:
    MainFailed: if it failed on a worker; it is then stopped on the others.
    Preempted: if the TPU is gone.
    Unreachable: if the TPU is there, but its workers stay silent.
    ValueError: if the cloud does not say whether the TPU is there.
  """
  offset, silent = 0, 0
  last = collections.deque(maxlen=60)  # worker 0's, for a message
  while True:
    try:
      found = ask(gcloud, run, offset)
    except tpu_workers.Unreachable as error:
      silent += 1
      check_there(gcloud, run)
      if silent >= PATIENCE:
        raise
      first = str(error).splitlines()[0]
      note(f'no answer ({first}), but the TPU is there: asking again')
      sleep(poll)
      continue
    silent = 0
    log = found[0].log
    full = found[0].offset - offset >= _PART
    offset = found[0].offset
    if log:
      write(log)
      last.extend(log.splitlines())
    if full:  # there is more to read
      continue
    bad = [worker for worker, each in found.items() if not each.good]
    if bad:
      raise _failed(gcloud, run, found, bad, '\n'.join(last))
    if not any(each.running for each in found.values()):
      return
    sleep(poll)


def check_there(gcloud: tpu_gcloud.Gcloud, run: tpu_state.Run) -> None:
  """Raises if the TPU of a run is gone.

  Args:
    gcloud: to run commands with.
    run: whose TPU was there before.

  Raises:
    Preempted: if it is gone.
    ValueError: if the cloud does not say.
  """
  seen = tpu_cloud.look_all(gcloud, run)
  if any(each.lost for each in seen):
    raise Preempted(
      'the TPU was preempted or ended: ' + ' '.join(map(str, seen))
    )


def _failed(
  gcloud: tpu_gcloud.Gcloud,
  run: tpu_state.Run,
  found: Mapping[int, Status],
  bad: list[int],
  last: str,
) -> MainFailed:
  """Stops the others and returns what to raise."""
  states = [f'worker {each}: {_words(found[each].state)}' for each in bad]
  message = f't5x.{run.main} failed on {tpu_workers.named(bad)} of '
  message += f'{len(found)} ({"; ".join(states)})'
  for worker in bad:
    # Worker 0's log was shown piece by piece.
    text = last if worker == 0 else found[worker].log
    message += f'\n{tpu_workers.tail(worker, text)}'
  others = [worker for worker, each in found.items() if each.running]
  if others:
    try:
      tpu_workers.run_all(
        gcloud, run, tpu_commands.stop(run), 'dst_t5x worker {worker} stopped'
      )
      message += f'\nIt was stopped on {tpu_workers.named(others)}.'
    except ValueError as error:
      message += f'\nStopping it on {tpu_workers.named(others)} failed: {error}'
  return MainFailed(message)


def _words(state: str) -> str:
  return {
    'lost': 'it is gone without an exit status, as after a restart',
    'absent': 'it was never started',
  }.get(state, state.replace('exited:', 'exit status '))
