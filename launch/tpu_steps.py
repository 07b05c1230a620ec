"""The steps of a run: each does one thing and notes that it is done.

Any of them may fail; what then exists is for `tpu_report` to find out. All can
be repeated.
"""

import time
from collections.abc import Callable

from dst_t5x.launch import (
  tpu_cloud,
  tpu_commands,
  tpu_flags,
  tpu_gcloud,
  tpu_package,
  tpu_state,
  tpu_workers,
)

# Seconds between two looks at something that takes minutes.
POLL = 20.0


class StillThere(ValueError):
  """Something was deleted and is there all the same."""


def create(
  gcloud: tpu_gcloud.Gcloud,
  run: tpu_state.Run,
  *,
  poll: float = POLL,
  sleep: Callable[[float], None] = time.sleep,
) -> tpu_state.Run:
  """Makes the TPU unless it is there, and waits until it is ready.

  Args:
    gcloud: to run commands with.
    run: what to make; its state file is written already.
    poll: between two looks at a queued resource (seconds).
    sleep: waits.

  Returns:
    The run, with the step noted.

  Raises:
    ValueError: if it could not be made.
  """
  tpu_package.prepare(run)
  if tpu_cloud.look(gcloud, run, queue=run.queued).state is None:
    gcloud.call(tpu_commands.create(run))
  while run.queued:
    queue = tpu_cloud.look(gcloud, run, queue=True)
    if queue.state == 'ACTIVE':
      break
    _check_coming(queue, run)
    sleep(poll)
  while True:
    node = tpu_cloud.look(gcloud, run)
    if node.state == 'READY':
      break
    _check_coming(node, run)
    sleep(poll)
  return tpu_state.finished(run, 'create')


def install(gcloud: tpu_gcloud.Gcloud, run: tpu_state.Run) -> tpu_state.Run:
  """Installs the package on all workers.

  Args:
    gcloud: to run commands with.
    run: whose TPU.

  Returns:
    The run, with the step noted.

  Raises:
    ValueError: if a worker failed; it names the worker.
  """
  tpu_package.write_bundle(run)
  send, script = tpu_commands.install(run)
  gcloud.call(send)
  said = tpu_workers.run_all(gcloud, run, script, 'dst_t5x worker {worker} ok')
  tpu_workers.check_same(said)
  return tpu_state.finished(run, 'install')


def copy(gcloud: tpu_gcloud.Gcloud, run: tpu_state.Run) -> tpu_state.Run:
  """Copies the recipe to all workers.

  Args:
    gcloud: to run commands with.
    run: whose TPU; `flags` and `files` say what.

  Returns:
    The run, with the step noted.

  Raises:
    ValueError: if it could not be copied.
  """
  tpu_package.write_recipe(run, run.flags)
  send, unpack = tpu_commands.copy(run)
  gcloud.call(send)
  tpu_workers.run_all(gcloud, run, unpack, 'dst_t5x copied')
  return tpu_state.finished(run, 'copy')


def start(gcloud: tpu_gcloud.Gcloud, run: tpu_state.Run) -> tpu_state.Run:
  """Starts the main on all workers.

  Args:
    gcloud: to run commands with.
    run: whose TPU; `main` and `flags` say what.

  Returns:
    The run, with the step noted.

  Raises:
    ValueError: if a worker did not start it.
  """
  flags = tpu_flags.for_workers(run.flags)
  # Counted before the command: workers must not take a new start for one that
  # they know.
  run = tpu_state.update(run, attempt=run.attempt + 1)
  tpu_workers.run_all(
    gcloud,
    run,
    tpu_commands.start(run, flags),
    'dst_t5x worker {worker} started( already)?',
  )
  return tpu_state.finished(run, 'run')


def fetch(
  gcloud: tpu_gcloud.Gcloud, run: tpu_state.Run, file: str
) -> tpu_state.Run:
  """Brings the delta of the last checkpoint to this machine.

  Args:
    gcloud: to run commands with.
    run: whose TPU.
    file: where to put it.

  Returns:
    The run, with the step noted.

  Raises:
    ValueError: if there is no delta, or what came is damaged.
  """
  from dst_t5x.delta.file import container

  model_dir = tpu_flags.output('train', run.flags)
  if model_dir is None:
    raise ValueError('no flag of the run binds MODEL_DIR: nothing to fetch')
  export, download = tpu_commands.fetch(run, model_dir, file)
  tpu_workers.run_all(gcloud, run, export, r'dst_t5x exported .*')
  gcloud.call(download)
  container.read(file)
  return tpu_state.finished(run, 'fetch')


def remove(
  gcloud: tpu_gcloud.Gcloud,
  run: tpu_state.Run,
  *,
  force: bool = False,
  poll: float = POLL,
  sleep: Callable[[float], None] = time.sleep,
) -> None:
  """Deletes all that the run made, and looks whether it is gone.

  Args:
    gcloud: to run commands with.
    run: as it was made; its state file stays.
    force: delete a TPU of that name even if this launcher did not make it.
    poll: between two looks (seconds).
    sleep: waits.

  Raises:
    StillThere: if it is there a while after it was deleted.
    ValueError: if it cannot be deleted, or is somebody else's.
  """
  # The queued resource first: it takes its TPU with it.
  for seen in tpu_cloud.look_all(gcloud, run):
    current = tpu_cloud.look(gcloud, run, queue=seen.queue)
    if current.state in (None, 'DELETING'):
      continue
    if current.expires is None and not force:
      raise ValueError(
        f'{current} It lacks the label {tpu_commands.EXPIRES}: somebody else '
        'made it; --force deletes it all the same'
      )
    gcloud.call(tpu_commands.delete(run, queue=seen.queue))
  left: list[tpu_cloud.Seen] = []
  for _ in range(6):
    left = [
      each for each in tpu_cloud.look_all(gcloud, run) if each.state is not None
    ]
    if not left:
      return
    sleep(poll)
  raise StillThere('deleted, but: ' + ' '.join(map(str, left)))


def _check_coming(seen: tpu_cloud.Seen, run: tpu_state.Run) -> None:
  if seen.lost:
    raise ValueError(f'there is no TPU to wait for: {seen}')
  if time.time() > run.expires:
    raise ValueError(f'the lifetime is over, and there is no TPU yet: {seen}')
