"""Starts processes, watches them, and stops them all as one.

When one of them fails, the others are stopped, as they are when this process
gets a signal. Each child leads a session of its own, so that its children end
with it; only a child that starts yet another session escapes. If this process
is killed, a guard kills the children (`guard.py`). For POSIX systems.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import BinaryIO, NamedTuple

_POLL_SECONDS = 0.02
# JAX catches SIGTERM and goes on: it lets programs save their state, of which
# T5X makes no use. So stopping usually takes this long.
GRACE_SECONDS = 3.0
STOPPED_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TIMED_OUT = 124  # As `timeout` of GNU coreutils.
_TRACEBACK = 'Traceback (most recent call last)'
# What a process logs if it fails because another one failed before it.
_CONSEQUENCES = (
  'JAX distributed service detected fatal errors',
  'coordination service',
  'Gloo ',
)


class Job(NamedTuple):
  """A process to be started.

  Attributes:
    command: program and arguments.
    environment: all variables of the process.
    log: file for what the process prints.
  """

  command: Sequence[str]
  environment: Mapping[str, str]
  log: pathlib.Path


class Outcome(NamedTuple):
  """How the processes ended.

  Attributes:
    code: exit code for a shell: 0, that of the failed process, 128 + a signal,
      or 124 if the time was up.
    failed: index of the process that failed first, or None.
    stopped_by: the signal that stopped everything, or None.
  """

  code: int
  failed: int | None = None
  stopped_by: signal.Signals | None = None


def run(
  jobs: Sequence[Job],
  *,
  show: Callable[[str], None],
  limit: float | None = None,
  grace: float = GRACE_SECONDS,
) -> Outcome:
  """Runs all jobs until they end, one fails, or a signal comes.

  None of their processes is left running afterwards. This handles signals, and
  is therefore to be called in the main thread.

  Args:
    jobs: what to start together.
    show: is called with each line of the first job, without its line end.
    limit: time after which everything is stopped (seconds).
    grace: time between SIGTERM and SIGKILL (seconds).

  Returns:
    How the processes ended.

  Raises:
    OSError: if a log cannot be written, or a program cannot be started.
  """
  children: list[subprocess.Popen[bytes]] = []
  end = None if limit is None else time.monotonic() + limit
  with contextlib.ExitStack() as stack:
    received = stack.enter_context(_signals())
    guard = stack.enter_context(_guard())
    stack.callback(_kill, children)  # However this block ends.
    for job in jobs:
      children.append(_start(job))
      guard(children[-1].pid)
    first = stack.enter_context(jobs[0].log.open('rb'))
    lines = _Lines(first, show)
    while True:
      lines.show()
      codes = [child.poll() for child in children]
      if received:
        _stop(children, grace, received)
        outcome = Outcome(128 + received[0], stopped_by=received[0])
      elif any(codes):
        _stop(children, grace, received)
        logs = [job.log for job in jobs]
        failed = first_failure(codes, [tail(log) for log in logs])
        outcome = Outcome(shell_code(codes[failed] or 0), failed=failed)
      elif all(code == 0 for code in codes):
        outcome = Outcome(0)
      elif end is not None and time.monotonic() > end:
        _stop(children, grace, received)
        outcome = Outcome(TIMED_OUT)
      else:
        time.sleep(_POLL_SECONDS)
        continue
      lines.show()
      return outcome


def shell_code(code: int) -> int:
  """Returns the exit code that a shell gives to a process.

  Args:
    code: as `subprocess` has it, negative for a signal.

  Returns:
    128 + the signal, or the code itself.

  Example:
    >>> shell_code(-9), shell_code(1)
    (137, 1)
  """
  return 128 - code if code < 0 else code


def first_failure(codes: Sequence[int | None], ends: Sequence[str]) -> int:
  """Returns which process failed by itself, of those that ended together.

  Args:
    codes: exit codes, as `subprocess` has them; None while a process runs.
    ends: the last lines of each log.

  Returns:
    The index of the first failed process whose log does not blame another one;
    if all do, of the first that failed.

  Example:
    >>> first_failure([None, 0, -6, 1], ['', '', 'Aborted', 'ValueError'])
    2
    >>> gone = 'Terminating process because the JAX distributed service '
    >>> gone += 'detected fatal errors.'
    >>> first_failure([-6, -9], [gone, 'Training: step 3'])
    1
  """
  failed = [index for index, code in enumerate(codes) if code]
  return min(failed, key=lambda i: any(s in ends[i] for s in _CONSEQUENCES))


def tail(log: pathlib.Path, *, lines: int = 20, most: int = 100) -> str:
  """Returns the end of a log: its last traceback, or else its last lines.

  Args:
    log: the file.
    lines: how many lines to return if there is no traceback.
    most: how many lines of a traceback to return; of a longer one, those in
      the middle are left out.

  Returns:
    The text, without a line end after it; empty if the log is empty.
  """
  with log.open('rb') as file:
    file.seek(max(0, log.stat().st_size - 200_000))
    read = file.read().decode(errors='replace').splitlines()
  starts = [i for i, line in enumerate(read) if line.startswith(_TRACEBACK)]
  end = read[starts[-1] :] if starts else read[-lines:]
  if len(end) > most:
    half = most // 2
    end = [*end[:half], f'… {len(end) - most} lines …', *end[-half:]]
  return '\n'.join(end)


class _Lines:
  """Shows the whole lines that were added to a file since the last call."""

  def __init__(self, file: BinaryIO, show: Callable[[str], None]) -> None:
    self._file = file
    self._show = show
    self._rest = b''

  def show(self) -> None:
    *lines, self._rest = (self._rest + self._file.read()).split(b'\n')
    for line in lines:
      self._show(line.decode(errors='replace'))


def _start(job: Job) -> subprocess.Popen[bytes]:
  with job.log.open('wb') as log:
    return subprocess.Popen(
      job.command,
      env=job.environment,
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )


def _stop(
  children: Sequence[subprocess.Popen[bytes]],
  grace: float,
  received: Sequence[signal.Signals],
) -> None:
  """Asks all to end, and waits until the grace is over or a signal comes."""
  asked = len(received)
  _send(children, signal.SIGTERM)
  end = time.monotonic() + grace
  while any(child.poll() is None for child in children):
    if time.monotonic() > end or len(received) > max(asked, 1):
      break
    time.sleep(_POLL_SECONDS)


def _kill(children: Sequence[subprocess.Popen[bytes]]) -> None:
  """Kills the groups, also of processes that ended and may have children."""
  _send(children, signal.SIGKILL)
  for child in children:
    child.wait()


def _send(
  children: Sequence[subprocess.Popen[bytes]], number: signal.Signals
) -> None:
  for child in children:
    # macOS raises PermissionError for a group of zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
      os.killpg(child.pid, number)


@contextlib.contextmanager
def _signals() -> Iterator[list[signal.Signals]]:
  """Notes the signals that would end this process, instead of ending it."""
  received: list[signal.Signals] = []

  def note(number: int, frame: FrameType | None) -> None:
    del frame
    received.append(signal.Signals(number))

  # A signal that is ignored stays ignored: so `nohup` and `&` protect a run.
  before = {
    number: signal.signal(number, note)
    for number in STOPPED_BY
    if signal.getsignal(number) != signal.SIG_IGN
  }
  try:
    yield received
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


@contextlib.contextmanager
def _guard() -> Iterator[Callable[[int], None]]:
  """Starts the guard; yields a function that tells it of a process group."""
  program = pathlib.Path(__file__).with_name('guard.py')
  process = subprocess.Popen(
    [sys.executable, '-I', '-S', str(program)],
    stdin=subprocess.PIPE,
    start_new_session=True,
    text=True,
  )
  pipe = process.stdin
  assert pipe is not None

  def tell(group: int) -> None:
    print(group, file=pipe, flush=True)

  try:
    yield tell
  finally:
    # This process is alive and has stopped the groups itself.
    with contextlib.suppress(BrokenPipeError):
      pipe.write('done\n')
      pipe.close()
    process.wait()
