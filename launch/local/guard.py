"""Kills process groups if the launcher that started them is gone.

Its standard input is a pipe from the launcher: a line for each group, and
'done' at the end. The pipe closes when the launcher ends, however it ends. If
'done' did not come by then, only this program is left to stop the groups.
"""

import contextlib
import os
import signal
import sys


def main() -> None:
  """Reads until the pipe closes; kills the groups unless 'done' came."""
  # The launcher alone answers signals that are sent from its terminal.
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
  lines = sys.stdin.read().split()
  if 'done' not in lines:
    for group in lines:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(int(group), signal.SIGKILL)


if __name__ == '__main__':
  main()
