"""Predictions of a process that knows nothing but the files."""

import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence


class FreshProcessError(RuntimeError):
  """The new process failed; tells what it wrote last."""


def predict(
  inputs: Sequence[str],
  *,
  seed: str,
  delta: pathlib.Path,
  max_tokens: int,
  batch_size: int,
) -> list[str]:
  """Returns what `dst-t5x infer` prints in a process of its own.

  Args:
    inputs: prompts, without line ends.
    seed: path of the seed, or 'bundled'.
    delta: path of the delta.
    max_tokens: tokens of an input and of a prediction, at most (count).
    batch_size: rows of a batch (count).

  Returns:
    The predictions, in the same order.

  Raises:
    FreshProcessError: if that process fails.
  """
  done = subprocess.run(
    [
      sys.executable, '-m', 'dst_t5x.commands.cli', 'infer', '--json',
      '--input', '-', '--seed', seed, '--delta', str(delta),
      '--inputs-length', str(max_tokens), '--targets-length', str(max_tokens),
      '--batch-size', str(batch_size),
    ],
    input='\n'.join(inputs) + '\n',
    capture_output=True,
    encoding='utf-8',
    check=False,
  )  # fmt: skip
  if done.returncode:
    raise FreshProcessError(
      f'dst-t5x infer failed in a new process: {done.stderr.strip()[-2000:]}'
    )
  return [
    json.loads(line)['prediction'] for line in done.stdout.strip().split('\n')
  ]
