"""What there is in the cloud: status, list, and deletion of what is overdue."""

import dataclasses
import json
import os
import time
from collections.abc import Sequence

import click

from dst_t5x.commands import shared_options

from . import (
  before_cost,
  main_status,
  resources,
  run_options,
  state_file,
  step_table,
  text_columns,
  whole_run,
)
from .gcloud import Gcloud
from .session import Failure, Session
from .state_file import Run


@click.command()
@click.argument('name')
@shared_options.json_option
@run_options.gcloud
def status(name: str, as_json: bool, gcloud: Gcloud) -> None:
  """Say what exists of NAME, and how its main is doing."""
  run = state_file.read(name)
  session = Session(gcloud, run)
  existing = session.look_all()
  states: dict[int, str] = {}
  trouble = None
  if 'run' in run.done and not any(each.lost for each in existing):
    try:
      statuses = main_status.ask(session)
      states = {worker: each.state for worker, each in statuses.items()}
    except ValueError as error:
      trouble = str(error)
  if as_json:
    content = {
      'run': dataclasses.asdict(run),
      'resources': [each._asdict() for each in existing],
      'workers': states,
      'error': trouble,
    }
    click.echo(json.dumps(content, indent=2))
    return
  rows = [
    ('accelerator', run.accelerator),
    ('done', ', '.join(run.done)),
    ('main', f't5x.{run.main}' if run.main else 'none yet'),
    ('lifetime', text_columns.time_left(run.expires)),
    *((f'worker {k}', state) for k, state in sorted(states.items())),
  ]
  for each in existing:
    click.echo(str(each))
  click.echo(text_columns.columns(rows))
  if trouble:
    click.echo(trouble)


@click.command(name='list')
@run_options.zones
@run_options.project
@shared_options.json_option
@run_options.gcloud
def list_command(
  zones: tuple[str, ...], project: str | None, as_json: bool, gcloud: Gcloud
) -> None:
  """Show all that this program made in some zones, with age and lifetime."""
  existing = [
    (payer, each)
    for zone, payer in places(zones, project)
    for each in resources.made_here(gcloud, zone, payer)
  ]
  if as_json:
    content = [
      {**each._asdict(), 'project': payer, 'expires': each.expires}
      for payer, each in existing
    ]
    click.echo(json.dumps(content, indent=2))
    return
  if not existing:
    click.echo('nothing that this program made')
    return
  rows = [('name', 'kind', 'zone', 'project', 'state', 'age', 'lifetime')]
  for payer, each in existing:
    kind = 'queued resource' if each.queue else 'TPU'
    age = text_columns.span(time.time() - each.created) if each.created else '?'
    left = text_columns.time_left(each.expires or 0)
    rows.append((each.name, kind, each.zone, payer, str(each.state), age, left))
  click.echo(text_columns.columns(rows))


def unknown_run(
  name: str, zone: str, project: str | None, *, provisioning: str
) -> Run:
  """Returns a run of which nothing is known but where it is, to delete it.

  Args:
    name: of the TPU or queued resource.
    zone: where it is.
    project: the project that pays.
    provisioning: one of `state_file.PROVISIONING`, which says what is looked
      for.

  Raises:
    ValueError: if the project is missing.
  """
  payer = before_cost.check_project(project)
  return Run(name, zone, payer, accelerator='', provisioning=provisioning)


def places(zones: Sequence[str], project: str | None) -> list[tuple[str, str]]:
  """Returns where to look for what this program made.

  Args:
    zones: as given; without any, those of the state files here, and the one in
      CLOUDSDK_COMPUTE_ZONE.
    project: as given, for zones that no state file names.

  Returns:
    Pairs of zone and project.

  Raises:
    ValueError: if there is no zone, or no project for one.
  """
  if zones:
    payer = before_cost.check_project(project)
    return [(before_cost.check_zone(zone), payer) for zone in zones]
  runs = map(state_file.read, state_file.names())
  pairs = [(run.zone, run.project) for run in runs]
  if os.environ.get('CLOUDSDK_COMPUTE_ZONE') and project:
    pairs.append((os.environ['CLOUDSDK_COMPUTE_ZONE'], project))
  if not pairs:
    raise ValueError('give --zone, once for each zone to look in')
  return list(dict.fromkeys(pairs))


def sweep(
  gcloud: Gcloud,
  where: Sequence[tuple[str, str]],
  *,
  poll: float,
  dry_run: bool,
) -> None:
  """Deletes all that is overdue.

  Args:
    gcloud: the program.
    where: pairs of zone and project.
    poll: time between two looks (seconds).
    dry_run: print the commands instead.

  Raises:
    Failure: if something could not be deleted; all others are.
  """
  reports, count = [], 0
  for zone, project in where:
    overdue = [
      each
      for each in resources.made_here(gcloud, zone, project)
      if (each.expires or 0) <= time.time()
    ]
    queues = {each.name for each in overdue if each.queue}
    for each in overdue:
      if not each.queue and (each.owner or each.name) in queues:
        continue  # The queued resource takes its TPU with it.
      kind = 'queued' if each.queue else 'on-demand'
      run = unknown_run(each.name, each.zone, project, provisioning=kind)
      session = Session(gcloud, run, poll=poll, go_on='delete')
      count += 1
      if dry_run:
        whole_run.show(session, [step_table.DELETE])
        continue
      try:
        step_table.do(step_table.DELETE, session)
        whole_run.finish(step_table.DELETE, session)
      except ValueError as error:
        reports.append(session.report(str(error)))
  if not count:
    click.echo('nothing is overdue')
  if reports:
    raise Failure('\n\n'.join(reports))
