"""A run's metrics over time, one JSON object a line."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from dst_t5x.arrays import atomic

FILE = 'history.jsonl'


class History:
  """Appends rows, and forgets those that a resumed run will write again.

  Args:
    root: the run's directory.
    resumed_at: step of the checkpoint that the run goes on from (count); rows
      of later steps were written before the run was cut off and are dropped.
  """

  def __init__(self, root: str | os.PathLike[str], *, resumed_at: int = 0):
    self._path = pathlib.Path(root) / FILE
    kept = [row for row in read(root) if row['step'] <= resumed_at]
    text = ''.join(json.dumps(row) + '\n' for row in kept)
    atomic.write_bytes(self._path, text.encode())

  def add(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
    """Appends a row.

    Args:
      kind: 'train' or 'eval'.
      step: the step that the values belong to (count).
      values: names and numbers.
    """
    row = {'kind': kind, 'step': step, **values}
    with open(self._path, 'a', encoding='utf-8') as file:
      file.write(json.dumps(row) + '\n')


def read(root: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Returns all whole rows; a last line cut off by a kill is left out.

  Args:
    root: the run's directory.

  Returns:
    The rows, oldest first; none if there is no history.
  """
  path = pathlib.Path(root) / FILE
  if not path.exists():
    return []
  rows = []
  for line in path.read_text('utf-8').split('\n'):
    if not line.endswith('}'):
      continue
    rows.append(json.loads(line))
  return rows
