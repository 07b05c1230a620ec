"""Runs a script on the workers, and says which of them did not manage."""

import pathlib
import re
import shutil
from collections.abc import Mapping, Sequence

from dst_t5x.launch import tpu_gcloud, tpu_state
from dst_t5x.planning import slices

_TAIL = 25


class WorkersFailed(ValueError):
  """Some workers did not do what they were told; names them."""


class Unreachable(ValueError):
  """The command that talks to the workers failed before they could answer."""


def run(
  gcloud: tpu_gcloud.Gcloud,
  state: tpu_state.Run,
  args: Sequence[str],
  *,
  quiet: bool = False,
) -> dict[int, str]:
  """Runs an ssh command and collects what every worker said.

  Args:
    gcloud: to run it with.
    state: whose TPU.
    args: from `tpu_commands.ssh`.
    quiet: do not show the command.

  Returns:
    Worker → its output, whole.

  Raises:
    Unreachable: if the command failed and some worker said nothing.
    ValueError: if gcloud cannot be run.
  """
  said, error = _run(gcloud, state, args, quiet=quiet)
  if error is not None and len(said) < _count(state, args):
    raise Unreachable(str(error)) from error
  return said


def run_all(
  gcloud: tpu_gcloud.Gcloud,
  state: tpu_state.Run,
  args: Sequence[str],
  mark: str,
) -> dict[int, str]:
  """Runs an ssh command that every worker must end with a certain line.

  Args:
    gcloud: to run it with.
    state: whose TPU.
    args: from `tpu_commands.ssh`.
    mark: the line, a regular expression where {worker} is the number.

  Returns:
    Worker → its output, whole.

  Raises:
    WorkersFailed: if one did not; with the end of what it said.
    ValueError: if gcloud cannot be run.
  """
  said, error = _run(gcloud, state, args, quiet=False)
  workers = range(_count(state, args))
  failed = [
    worker
    for worker in workers
    if not re.search(
      rf'^{mark.format(worker=worker)}$', said.get(worker, ''), re.M
    )
  ]
  if failed:
    raise WorkersFailed(
      f'{named(failed)} of {len(workers)} failed'
      + ''.join(f'\n{tail(worker, said.get(worker, ""))}' for worker in failed)
      + (f'\n{error}' if error else '')
    )
  # All lines are there: whatever the command then stumbled over, the work is
  # done.
  return said


def named(workers: Sequence[int]) -> str:
  """Returns workers in words.

  Example:
    >>> named([1]), named([0, 2])
    ('worker 1', 'workers 0, 2')
  """
  plural = 's' if len(workers) > 1 else ''
  return f'worker{plural} {", ".join(map(str, workers))}'


def tail(worker: int, text: str) -> str:
  """Returns the end of what a worker said, for a message.

  Args:
    worker: its number.
    text: all that it said.

  Returns:
    Indented lines.

  Example:
    >>> print(tail(1, 'no space left'))
    worker 1 said:
      no space left
  """
  lines = text.rstrip().splitlines()[-_TAIL:]
  if not lines:
    return f'worker {worker} said nothing'
  return '\n'.join([f'worker {worker} said:', *(f'  {x}' for x in lines)])


def check_same(said: Mapping[int, str]) -> None:
  """Refuses workers that have different versions.

  Args:
    said: worker → what its installation said.

  Raises:
    WorkersFailed: if the lines `dst_t5x version …` differ.
  """
  versions = {
    worker: re.findall(r'^dst_t5x version (.*)$', text, re.M)
    for worker, text in said.items()
  }
  for worker, found in versions.items():
    if found != versions[0]:
      raise WorkersFailed(
        f'worker {worker} has {"; ".join(found)}, but worker 0 has '
        f'{"; ".join(versions[0])}: name commits with --t5x-commit, '
        '--airio-commit and --jestimator-commit'
      )


def _count(state: tpu_state.Run, args: Sequence[str]) -> int:
  return slices.parse(state.accelerator).hosts if '--worker=all' in args else 1


def _run(
  gcloud: tpu_gcloud.Gcloud,
  state: tpu_state.Run,
  args: Sequence[str],
  *,
  quiet: bool,
) -> tuple[dict[int, str], tpu_gcloud.CommandFailed | None]:
  folder = pathlib.Path(state.folder, 'said')
  # What an earlier command left must not be taken for an answer.
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  failure = None
  try:
    gcloud.call(args, quiet=quiet)
  except tpu_gcloud.CommandFailed as error:
    failure = error
  said = {
    int(file.stem): file.read_text('utf-8', errors='replace')
    for file in folder.glob('*.log')
    if file.stem.isdigit()
  }
  return said, failure
