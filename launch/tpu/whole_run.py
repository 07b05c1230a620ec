"""Carries out the steps that a run lacks, through preemptions."""

import contextlib
import math
import pathlib
import time
from collections.abc import Iterable, Iterator

import click

from . import main_status, state_file, step_table, workers
from .resources import Preempted
from .session import Session
from .step_table import Step

# A TPU with less than this lifetime left is not made again (seconds).
_TOO_SHORT = 600


def deadline(hours: float) -> int:
  """Returns when a lifetime that begins now is over.

  Args:
    hours: its length.

  Returns:
    Its end (seconds since 1970).
  """
  return math.ceil(time.time() + hours * 3600)


def wanted(run: state_file.Run) -> list[Step]:
  """Returns the steps that a run consists of.

  Args:
    run: with its main, if one is chosen.

  Returns:
    Steps of `step_table.STEPS`, in order.

  Example:
    >>> run = state_file.Run('demo', 'us-central2-b', 'lab', 'v4-8')
    >>> [step.name for step in wanted(run)]
    ['create']
  """
  if run.main is None:
    return [step_table.CREATE]
  steps = [*step_table.WORK]
  if run.finish:
    steps += [step_table.FETCH] if run.main == 'train' else []
    steps.append(step_table.DELETE)
  return steps


def show(session: Session, steps: Iterable[Step]) -> None:
  """Prints the commands of steps, and runs none.

  Args:
    session: the run.
    steps: of `step_table.STEPS`.

  Raises:
    ValueError: if workers cannot carry out the run's flags.
  """
  for step in steps:
    click.echo(f'# {step.name}')
    for command in step.commands(session):
      click.echo(session.gcloud.typed(command.args))


def claim(session: Session) -> None:
  """Writes the state file of a new run, unless its name is taken.

  Raises:
    ValueError: if the name is taken, or the cloud does not answer.
  """
  for resource in session.look_all():
    if resource.state is not None:
      raise ValueError(f'the name is taken: {resource} Take another name.')
  state_file.write(session.run)


@contextlib.contextmanager
def preemption_noticed(session: Session, step: Step) -> Iterator[None]:
  """Turns an error of a step into `Preempted` if the TPU was taken away.

  Raises:
    Preempted: in place of another error, in the steps `WORK`.
  """
  try:
    yield
  except Preempted:
    raise
  except ValueError as error:
    if step in step_table.WORK and 'create' in session.run.done:
      try:
        is_lost = any(each.lost for each in session.look_all())
      except ValueError:  # The first error is the one to show.
        is_lost = False
      if is_lost:
        raise Preempted(f'the TPU is gone: {error}') from error
    raise


def carry_out(session: Session) -> None:
  """Does all steps that are missing, through preemptions.

  Args:
    session: the run; `max_preemptions` says how often it goes on by itself.

  Raises:
    Preempted: if the TPU was taken away once too often.
    ValueError: if a step fails otherwise.
  """
  left = session.max_preemptions
  while True:
    try:
      for step in _missing(session.run):
        if step in step_table.WORK:
          with preemption_noticed(session, step):
            step_table.do(step, session)
      break
    except Preempted as error:
      if not left:
        raise
      main_status.note(
        f'{error}\npreempted; going on by itself (of {left} times)'
      )
      left -= 1
      rebuild(session, expires=session.run.expires)
  for step in _missing(session.run):
    step_table.do(step, session)
    if step is step_table.FETCH:
      size = pathlib.Path(session.delta_file).stat().st_size
      click.echo(f'{size} bytes: {session.delta_file}')
    else:
      finish(step, session)


def resume(session: Session, *, hours: float) -> None:
  """Goes on with a run, whatever became of it.

  If the TPU is gone, what is left of it is deleted and it is made again.

  Args:
    session: the run.
    hours: lifetime of a TPU that is made again.

  Raises:
    ValueError: if a step fails.
  """
  run = session.run
  seen = session.look_all()
  # A queue that has not given the TPU yet has not lost it.
  is_waiting = run.queued and not seen[0].lost and 'create' not in run.done
  if any(each.lost for each in seen) and not is_waiting:
    session.update(max_hours=hours)
    rebuild(session, expires=deadline(hours))
  elif 'copy' in run.done and run.attempt:
    # The main may have been started although its start was not heard of.
    _find_main(session)
  carry_out(session)


def rebuild(session: Session, *, expires: int) -> None:
  """Deletes what a preemption left, so that all steps are missing again.

  Args:
    session: the run.
    expires: end of the lifetime of the next TPU (seconds since 1970).

  Raises:
    ValueError: if something is left, or too little of the lifetime.
  """
  if time.time() > expires - _TOO_SHORT:
    raise Preempted('no other TPU is made, as its lifetime is almost over')
  step_table.remove(session)
  session.update(done=(), expires=expires)


def finish(step: Step, session: Session) -> None:
  """Prints the outcome of a step.

  Args:
    step: that is done.
    session: the run.
  """
  click.echo(
    step.outcome.format(name=session.run.name, delta=session.delta_file)
  )


def _missing(run: state_file.Run) -> list[Step]:
  return [step for step in wanted(run) if step.name not in run.done]


def _find_main(session: Session) -> None:
  """Notes the start if the main is well on all workers, or else undoes it."""
  run = session.run
  try:
    statuses = main_status.ask(session)
  except workers.Unreachable:
    return  # The main may be well; `follow` asks again.
  if all(each.good for each in statuses.values()):
    if 'run' not in run.done:
      session.run = state_file.finished(run, 'run')
    return
  main_status.stop(session)
  session.update(done=without_start(run))


def without_start(run: state_file.Run) -> tuple[str, ...]:
  """Returns the steps of a run that stay done if its main is started again.

  Args:
    run: as it is.

  Returns:
    Names of steps.

  Example:
    >>> done = ('create', 'run')
    >>> without_start(state_file.Run('demo', 'a-b1-c', 'p', 'v4-8', done=done))
    ('create',)
  """
  return tuple(each for each in run.done if each not in ('run', 'follow'))
