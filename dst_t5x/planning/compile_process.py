"""Runs `compiled` in a process of its own, and returns what it measures."""

import importlib.metadata
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
from dst_t5x.planning.tpu_compiler import TPUCompiler


class CompileError(ValueError):
  """The process that compiles failed; the message ends with its error."""


def run(
  slice_: Slice,
  flags: Sequence[str],
  *,
  compiler: TPUCompiler,
  baseline: bool = True,
  on_stage: Callable[[str], None] = lambda stage: None,
) -> dict[str, Any]:
  """Compiles T5X's train step for a slice, and returns what it needs there.

  Args:
    slice_: the slice to compile for; see `slices.parse`.
    flags: T5X's command line.
    compiler: see `tpu_compiler.find`.
    baseline: whether to compile full fine-tuning, too, to compare with.
    on_stage: called with what is being done, such as 'tuned: compiling'.

  Returns:
    Under 'mesh', the sizes of the mesh's axes; under 'tuned', what the step
    needs with the method; with `baseline`, under 'full', what it needs
    without. See `compiled.measure`. Under 'versions', the versions of what
    compiled it.

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
    environment = virtual_slice.environment(compiler)
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
        f'status {code}):\n{_last_error(log.read_text(errors="replace"))}'
      )
    return {**json.loads(out.read_text()), 'versions': _versions(compiler)}


def _versions(compiler: TPUCompiler) -> dict[str, str]:
  versions = {
    name: importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'flax')
  }
  return {'libtpu': compiler.version, **versions}


def _last_error(log: str) -> str:
  """Returns the message of a log's last error, or its last lines."""
  lines = [
    line
    for line in log.rstrip().split(os.linesep)
    if not line.startswith(('WARNING:absl', 'I0', 'W0'))
  ]
  tracebacks = [
    number for number, line in enumerate(lines) if line.startswith('Traceback ')
  ]
  first = tracebacks[-1] + 1 if tracebacks else len(lines)
  # A traceback's first line without indent names the error; gin adds to it.
  for number in range(first, len(lines)):
    if not lines[number].startswith(' '):
      return '\n'.join(lines[number : number + 12])
  return '\n'.join(lines[-12:])
