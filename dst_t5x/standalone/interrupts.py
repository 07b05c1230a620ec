"""Ctrl-C and SIGTERM as a request that the training loop can honour."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
  """The run was asked to stop, and has saved its state."""


class StopRequest:
  """Whether somebody asked the run to stop.

  Attributes:
    signal_name: 'SIGINT' or 'SIGTERM' once asked, else None.
  """

  def __init__(self) -> None:
    self.signal_name: str | None = None

  def __bool__(self) -> bool:
    """True once asked."""
    return self.signal_name is not None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
  """Turns the first SIGINT or SIGTERM into a request, the second into an end.

  Only the main thread may handle signals; elsewhere nothing is changed.

  Yields:
    The request.
  """
  request = StopRequest()
  before: dict[signal.Signals, object] = {}

  def handle(number: int, _: FrameType | None) -> None:
    if request:
      raise KeyboardInterrupt
    request.signal_name = signal.Signals(number).name

  try:
    for which in (signal.SIGINT, signal.SIGTERM):
      before[which] = signal.signal(which, handle)
  except ValueError:  # not the main thread
    before.clear()
  try:
    yield request
  finally:
    for which, handler in before.items():
      signal.signal(which, handler)  # type: ignore[arg-type]
