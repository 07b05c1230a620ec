"""Children of a test that are to be sent signals.

A shell's `&` and `nohup` start programs with SIGINT ignored, children inherit
that, and Python then installs no handler for it. Tests that are run so would
send their children signals in vain.
"""

import sys

_SETTLE = """
import os, signal, sys
for name in ('SIGINT', 'SIGTERM', 'SIGHUP'):
  number = getattr(signal, name)
  ignored = number == int(sys.argv[1])
  signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def python(*arguments: str, ignored: int = 0) -> list[str]:
  """Returns a command that runs Python and obeys signals.

  It does not matter which signals this process ignores. (`preexec_fn` would do
  the same, but is not safe beside the threads of JAX.)

  Args:
    *arguments: of Python.
    ignored: the one signal that the command ignores; 0 for none.
  """
  return [sys.executable, '-c', _SETTLE, str(int(ignored)), *arguments]
