"""Runs `compiled` in a process of its own and gives back what it found."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from dst_t5x.planning import virtual_slice
from dst_t5x.planning.slices import Slice


class CompileError(ValueError):
  """The process that compiles ended with an error, which is shown."""


def run(
  slice_: Slice,
  flags: Sequence[str],
  *,
  baseline: bool = True,
  on_stage: Callable[[str], None] = lambda stage: None,
) -> dict[str, Any]:
  """Returns what T5X's train step takes of a device, compiled for a slice.

  Args:
    slice_: see `slices.parse`.
    flags: T5X's.
    baseline: whether to compile full fine-tuning, too, to compare with.
    on_stage: called with what is going on, such as 'tuned: compiling'.

  Returns:
    'mesh', 'tuned' and perhaps 'full'; see `compiled.measured`.

  Raises:
    CompileError: if the recipe cannot be built or compiled.
  """
  with tempfile.TemporaryDirectory() as folder:
    out, log = pathlib.Path(folder, 'out.json'), pathlib.Path(folder, 'log')
    line = [
      sys.executable,
      '-m',
      'dst_t5x.planning.compiled',
      str(slice_),
      str(out),
      *flags,
    ]
    environment = virtual_slice.environment()
    environment['DST_T5X_PLAN_FULL'] = str(int(baseline))
    with (
      log.open('wb') as stderr,
      subprocess.Popen(
        line,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
      ) as process,
    ):
      assert process.stdout is not None
      try:
        for stage in process.stdout:
          on_stage(stage.strip())
        code = process.wait()
      except BaseException:
        process.kill()
        raise
    if code:
      raise CompileError(
        f'T5X could not build or compile this recipe for {slice_} (exit '
        f'status {code}):\n{_end(log.read_text(errors="replace"))}'
      )
    return json.loads(out.read_text())


def _end(log: str) -> str:
  """Returns the last error of a log, or its last lines."""
  lines = [
    line
    for line in log.rstrip().split(os.linesep)
    if not line.startswith(('WARNING:absl', 'I0', 'W0'))
  ]
  begins = [
    number for number, line in enumerate(lines) if line.startswith('Traceback ')
  ]
  # Of a traceback, what was raised; gin adds lines of its own to it.
  for number in range(begins[-1] + 1 if begins else len(lines), len(lines)):
    if not lines[number].startswith(' '):
      return '\n'.join(lines[number : number + 12])
  return '\n'.join(lines[-12:])
