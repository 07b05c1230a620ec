"""All steps in order: what is missing is done, through preemptions."""

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import click

from dst_t5x.launch import (
  tpu_cloud,
  tpu_commands,
  tpu_flags,
  tpu_follow,
  tpu_gcloud,
  tpu_report,
  tpu_state,
  tpu_steps,
)

STEPS = ('create', 'install', 'copy', 'run', 'follow', 'fetch', 'delete')
# A TPU that has so little time left is not made again (seconds).
_TOO_SHORT = 600


class Settings(NamedTuple):
  """How a run is carried out.

  Attributes:
    poll: between two looks (seconds).
    max_preemptions: how often it goes on by itself (count).
    sleep: waits.
  """

  poll: float = tpu_steps.POLL
  max_preemptions: int = 0
  sleep: Callable[[float], None] = time.sleep


def note(text: str) -> None:
  """Shows a remark on standard error.

  Args:
    text: one line.
  """
  click.secho(text, err=True, fg='yellow')


def deadline(hours: float) -> int:
  """Returns when a lifetime that begins now is over.

  Args:
    hours: how long it is.

  Returns:
    Seconds since 1970.
  """
  return math.ceil(time.time() + hours * 3600)


def delta_name(run: tpu_state.Run) -> str:
  """Returns the file that a run's delta is fetched to.

  Args:
    run: any.

  Returns:
    Its name, for the working directory.

  Example:
    >>> delta_name(tpu_state.Run('demo', 'us-central2-b', 'lab', 'v4-8'))
    'demo.delta.safetensors'
  """
  return f'{run.name}.{tpu_commands.DELTA}'


def commands(
  run: tpu_state.Run, steps: Sequence[str] = STEPS
) -> Iterator[tuple[str, list[str]]]:
  """Yields every command of some steps in order, without running any.

  Args:
    run: with its main and flags, if they are needed.
    steps: some of `STEPS`.

  Yields:
    The step and the arguments of gcloud. Questions for the state are there
    once, though they are asked again and again.

  Raises:
    ValueError: if the flags cannot be carried out on workers.
  """
  for step in steps:
    args: list[list[str]] = []
    if step == 'create':
      args = [tpu_commands.create(run)]
      args += [tpu_commands.describe(run, queue=queue) for queue in run.kinds]
    elif step == 'install':
      args = tpu_commands.install(run)
    elif step == 'copy':
      args = tpu_commands.copy(run)
    elif step == 'run':
      flags = tpu_flags.for_workers(run.flags)
      next_run = dataclasses.replace(run, attempt=run.attempt + 1)
      args = [tpu_commands.start(next_run, flags)]
    elif step == 'follow':
      args = [tpu_commands.poll(run, 0)]
    elif step == 'fetch' and run.main == 'train':
      folder = tpu_flags.output('train', run.flags) or 'MODEL_DIR'
      args = tpu_commands.fetch(run, folder, delta_name(run))
    elif step == 'delete':
      for queue in run.kinds:
        args.append(tpu_commands.delete(run, queue=queue))
        args.append(tpu_commands.describe(run, queue=queue))
    for each in args:
      yield step, each


def watch(
  gcloud: tpu_gcloud.Gcloud, place: tpu_report.Place, settings: Settings
) -> None:
  """Follows the main to its good end.

  Args:
    gcloud: to run commands with.
    place: the run.
    settings: how.

  Raises:
    ValueError: if it fails, or the TPU is gone.
  """
  tpu_follow.follow(
    gcloud,
    place.run,
    write=lambda text: click.echo(text, nl=False),
    note=note,
    poll=settings.poll,
    sleep=settings.sleep,
  )
  place.run = tpu_state.finished(place.run, 'follow')


def advance(
  gcloud: tpu_gcloud.Gcloud, place: tpu_report.Place, settings: Settings
) -> None:
  """Does all steps that are not done yet, up to the end of the main.

  Args:
    gcloud: to run commands with.
    place: the run; its fields follow the steps.
    settings: how.

  Raises:
    ValueError: if a step fails.
  """
  if 'create' not in place.run.done:
    place.run = tpu_steps.create(
      gcloud, place.run, poll=settings.poll, sleep=settings.sleep
    )
  if place.run.main is None:
    return
  steps = {
    'install': tpu_steps.install,
    'copy': tpu_steps.copy,
    'run': tpu_steps.start,
  }
  for name, step in steps.items():
    if name not in place.run.done:
      place.run = step(gcloud, place.run)
  if 'follow' not in place.run.done:
    watch(gcloud, place, settings)


def carry_out(
  gcloud: tpu_gcloud.Gcloud, place: tpu_report.Place, settings: Settings
) -> None:
  """Does all that is missing; goes on after preemptions, as often as allowed.

  Args:
    gcloud: to run commands with.
    place: the run; its fields follow the steps.
    settings: how.

  Raises:
    Preempted: if the TPU was taken away once too often.
    ValueError: if a step fails otherwise.
  """
  left = settings.max_preemptions
  while True:
    try:
      advance(gcloud, place, settings)
      break
    except ValueError as error:
      lost = as_preempted(gcloud, place.run, error)
      if not isinstance(lost, tpu_follow.Preempted):
        raise
      if not left:
        raise lost from error
      note(f'{error}\npreempted; going on by itself (of {left} times)')
      left -= 1
      rebuild(gcloud, place, settings)
  if place.run.finish:
    wind_up(gcloud, place, settings)


def rebuild(
  gcloud: tpu_gcloud.Gcloud,
  place: tpu_report.Place,
  settings: Settings,
  *,
  expires: int | None = None,
) -> None:
  """Deletes what a preemption left, so that all steps are to be done again.

  Args:
    gcloud: to run commands with.
    place: the run; its fields follow.
    settings: how.
    expires: when the next TPU is to be gone; None leaves it as it is.

  Raises:
    ValueError: if something is left, or too little of the lifetime.
  """
  expires = place.run.expires if expires is None else expires
  if time.time() > expires - _TOO_SHORT:
    raise tpu_follow.Preempted(
      'its lifetime is as good as over, so that no other TPU is made'
    )
  tpu_steps.remove(gcloud, place.run, poll=settings.poll, sleep=settings.sleep)
  place.run = tpu_state.update(place.run, done=(), expires=expires)


def wind_up(
  gcloud: tpu_gcloud.Gcloud, place: tpu_report.Place, settings: Settings
) -> None:
  """Fetches the delta of a training, and deletes the TPU.

  Args:
    gcloud: to run commands with.
    place: the run, whose main has ended well.
    settings: how.

  Raises:
    ValueError: if a step fails; the TPU is deleted only after the delta came.
  """
  if place.run.main == 'train' and 'fetch' not in place.run.done:
    file = delta_name(place.run)
    place.run = tpu_steps.fetch(gcloud, place.run, file)
    click.echo(f'{pathlib.Path(file).stat().st_size} bytes: {file}')
  remove(gcloud, place.run, settings)


def remove(
  gcloud: tpu_gcloud.Gcloud,
  run: tpu_state.Run,
  settings: Settings,
  *,
  force: bool = False,
) -> None:
  """Deletes the TPU and, once it is gone, the state file.

  Args:
    gcloud: to run commands with.
    run: as it was made.
    settings: how.
    force: delete a TPU of that name even if this launcher did not make it.

  Raises:
    ValueError: if something is left.
  """
  tpu_steps.remove(
    gcloud, run, force=force, poll=settings.poll, sleep=settings.sleep
  )
  tpu_state.remove(run)
  click.echo(f'{run.name} is gone; nothing of it is billed')


def as_preempted(
  gcloud: tpu_gcloud.Gcloud, run: tpu_state.Run, error: ValueError
) -> ValueError:
  """Returns what an error means, if the TPU was taken away.

  Args:
    gcloud: to ask with.
    run: whose TPU.
    error: of a step.

  Returns:
    `error`, or a `Preempted` that quotes it.
  """
  if isinstance(error, tpu_follow.Preempted) or 'create' not in run.done:
    return error
  try:
    lost = tpu_cloud.preempted(gcloud, run)
  except ValueError:  # the first error is the one to show
    return error
  return tpu_follow.Preempted(f'the TPU is gone: {error}') if lost else error
