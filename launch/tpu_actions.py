"""What the commands have in common: one step, a claim, a sweep."""

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Sequence

import click

from dst_t5x.launch import (
  tpu_cloud,
  tpu_commands,
  tpu_flags,
  tpu_flow,
  tpu_follow,
  tpu_gcloud,
  tpu_options,
  tpu_report,
  tpu_state,
  tpu_workers,
)


def claim(gcloud: tpu_gcloud.Gcloud, run: tpu_state.Run) -> None:
  """Writes the state file of a new run, unless its name is taken.

  Args:
    gcloud: to ask with.
    run: that is to be made.

  Raises:
    ValueError: if the name is taken, or the cloud does not say.
  """
  for seen in tpu_cloud.look_all(gcloud, run):
    if seen.state is not None:
      raise ValueError(f'the name is taken: {seen} Take another name.')
  tpu_state.write(run)


def show(
  gcloud: tpu_gcloud.Gcloud, run: tpu_state.Run, steps: Sequence[str]
) -> None:
  """Prints the commands of some steps.

  Args:
    gcloud: to quote them.
    run: with its main and flags, if they are needed.
    steps: some of `tpu_flow.STEPS`.
  """
  before = None
  for name, args in tpu_flow.commands(run, steps):
    if name != before:
      click.echo(f'# {name}')
    before = name
    click.echo(gcloud.typed(args))


def step(
  name: str,
  function: Callable[[tpu_gcloud.Gcloud, tpu_state.Run], tpu_state.Run],
  run: tpu_state.Run,
  executable: str,
  *,
  dry_run: bool,
  go_on: str | None = None,
) -> None:
  """Does one step of a run that has a TPU.

  Args:
    name: of the step.
    function: of `tpu_steps`.
    run: with what the step needs; written before the step.
    executable: of gcloud.
    dry_run: print the commands instead.
    go_on: subcommand to name if it fails; the step's own name otherwise.

  Raises:
    ValueError: if the run has no TPU yet.
  """
  gcloud = tpu_options.client(executable)
  if dry_run:
    show(gcloud, run, (name,))
    return
  need(run, 'create')
  tpu_state.write(run)
  with tpu_report.reported(gcloud, run, go_on or name) as place:
    try:
      place.run = function(gcloud, run)
    except ValueError as error:
      raise tpu_flow.as_preempted(gcloud, run, error) from error
  click.echo(f'{run.name}: {name} done')


def need(run: tpu_state.Run, name: str) -> None:
  """Refuses a run that has not come so far.

  Args:
    run: any.
    name: of the step that must be done.

  Raises:
    ValueError: if it is not.
  """
  if name not in run.done:
    raise ValueError(
      f"{run.name}: '{name}' is not done yet; `resume {run.name}` does all "
      'that is missing'
    )


def check(run: tpu_state.Run, *, local: bool, ignore: bool) -> None:
  """Refuses a run that cannot go well, before it costs anything.

  Args:
    run: with its main and flags.
    local: let the main write to a worker's disk.
    ignore: go on though the plan does not fit.

  Raises:
    ValueError: if something is wrong; it says what would work.
  """
  for file in run.files:
    tpu_flags.check_below(file)
    if not pathlib.Path(file).is_file():
      raise ValueError(f'--file {file} does not exist')
  main = run.main or 'train'
  tpu_flags.local_files(run.flags)
  tpu_flags.for_workers(run.flags)
  tpu_flags.check_output(main, run.flags, allow_local=local)
  tpu_options.check_plan(run, run.flags, main=main, ignore=ignore)


def restarted(gcloud: tpu_gcloud.Gcloud, run: tpu_state.Run) -> tpu_state.Run:
  """Finds out whether the main goes on; stops it everywhere if it does not.

  Args:
    gcloud: to ask with.
    run: whose TPU is there.

  Returns:
    The run, with the start noted if the main goes on, or ended well, on all
    workers; otherwise with the start to be done again.

  Raises:
    ValueError: if a main that goes on somewhere cannot be stopped.
  """
  try:
    found = tpu_follow.ask(gcloud, run)
  except tpu_workers.Unreachable:
    return run  # the main may be well; `follow` asks again
  if all(each.good for each in found.values()):
    return run if 'run' in run.done else tpu_state.finished(run, 'run')
  tpu_workers.run_all(
    gcloud, run, tpu_commands.stop(run), 'dst_t5x worker {worker} stopped'
  )
  done = tuple(each for each in run.done if each not in ('run', 'follow'))
  return tpu_state.update(run, done=done)


def ended(name: str) -> None:
  """Says what can be done once the main has ended well.

  Args:
    name: of the run.
  """
  click.echo(f'{name}: its TPU is there and billed')
  for subcommand in ('fetch', 'delete'):
    click.echo(f'  {tpu_report.command(subcommand, name)}')


def stranger(name: str, zone: str, project: str | None) -> tpu_state.Run:
  """Returns a run of which nothing is known but where it is.

  Args:
    name: of the TPU or queued resource.
    zone: where it is.
    project: that pays.

  Returns:
    A run to delete; both kinds are looked for.

  Raises:
    ValueError: if the project is missing.
  """
  return tpu_state.Run(
    name,
    zone,
    tpu_options.check_project(project),
    accelerator='',
    provisioning='queued',
  )


def places(zones: Sequence[str], project: str | None) -> list[tuple[str, str]]:
  """Returns where to look for what this program made.

  Args:
    zones: as given; otherwise those of the state files here, and the one in
      CLOUDSDK_COMPUTE_ZONE.
    project: as given, for zones that no state file names.

  Returns:
    Pairs of zone and project.

  Raises:
    ValueError: if there is no zone, or no project for one.
  """
  if zones:
    known = tpu_options.check_project(project)
    return [(tpu_options.check_zone(zone), known) for zone in zones]
  found = []
  for file in sorted(pathlib.Path().glob('*.tpu.json')):
    run = tpu_state.read(file.name.removesuffix('.tpu.json'))
    found.append((run.zone, run.project))
  if os.environ.get('CLOUDSDK_COMPUTE_ZONE') and project:
    found.append((os.environ['CLOUDSDK_COMPUTE_ZONE'], project))
  if not found:
    raise ValueError('give --zone, once for each zone to look in')
  return list(dict.fromkeys(found))


def sweep(
  gcloud: tpu_gcloud.Gcloud,
  where: Sequence[tuple[str, str]],
  settings: tpu_flow.Settings,
  *,
  dry_run: bool,
) -> None:
  """Deletes all that is overdue.

  Args:
    gcloud: to ask and delete with.
    where: pairs of zone and project.
    settings: how.
    dry_run: print the commands instead.

  Raises:
    Failure: if something could not be deleted; all others are.
  """
  troubles = []
  count = 0
  for zone, project in where:
    seen = tpu_cloud.ours(gcloud, [zone], project)
    overdue = [each for each in seen if (each.expires or 0) <= time.time()]
    # A queued resource takes its TPU with it.
    queues = {each.name for each in overdue if each.queue}
    for each in overdue:
      if not each.queue and (each.owner or each.name) in queues:
        continue
      run = dataclasses.replace(
        stranger(each.name, each.zone, project),
        provisioning='queued' if each.queue else 'on-demand',
      )
      count += 1
      if dry_run:
        show(gcloud, run, ('delete',))
        continue
      try:
        tpu_flow.remove(gcloud, run, settings)
      except ValueError as error:
        troubles.append(tpu_report.report(gcloud, run, str(error), 'delete'))
  if not count:
    click.echo('nothing is overdue')
  if troubles:
    raise tpu_report.Failure('\n\n'.join(troubles))


def when(expires: int) -> str:
  """Returns how much of a lifetime is left.

  Args:
    expires: its end (seconds since 1970).

  Returns:
    Words.
  """
  left = expires - time.time()
  return f'{span(left)} left' if left > 0 else f'overdue by {span(-left)}'


def span(seconds: float) -> str:
  """Returns a length of time in words.

  Args:
    seconds: how long.

  Returns:
    Words.

  Example:
    >>> span(5400), span(90), span(200000)
    ('1.5 h', '2 min', '2.3 d')
  """
  if seconds < 3600:
    return f'{round(seconds / 60)} min'
  if seconds < 48 * 3600:
    return f'{seconds / 3600:.1f} h'
  return f'{seconds / 86400:.1f} d'
