"""The commands that say what there is, and end it: status, list, delete."""

import dataclasses
import json
import time

import click

from dst_t5x.commands import shared_options
from dst_t5x.launch import (
  tpu_actions,
  tpu_cloud,
  tpu_flow,
  tpu_follow,
  tpu_options,
  tpu_report,
  tpu_state,
)


@click.command()
@click.argument('name')
@shared_options.json_option
@tpu_options.gcloud
def status(name: str, as_json: bool, executable: str) -> None:
  """Say what exists of NAME, and how its main is doing."""
  gcloud = tpu_options.client(executable)
  run = tpu_state.read(name)
  seen = tpu_cloud.look_all(gcloud, run)
  workers: dict[int, str] = {}
  trouble = None
  if 'run' in run.done and not any(each.lost for each in seen):
    try:
      found = tpu_follow.ask(gcloud, run)
      workers = {worker: each.state for worker, each in found.items()}
    except ValueError as error:
      trouble = str(error)
  if as_json:
    content = {
      'run': dataclasses.asdict(run),
      'resources': [each._asdict() for each in seen],
      'workers': workers,
      'error': trouble,
    }
    click.echo(json.dumps(content, indent=2))
    return
  rows = [('accelerator', run.accelerator), ('done', ', '.join(run.done))]
  rows += [('main', f't5x.{run.main}' if run.main else 'none yet')]
  rows += [('lifetime', tpu_actions.when(run.expires))]
  rows += [(f'worker {k}', state) for k, state in sorted(workers.items())]
  for each in seen:
    click.echo(str(each))
  click.echo(tpu_options.table(rows))
  if trouble:
    click.echo(trouble)


@click.command()
@click.argument('name', required=False)
@click.option('--expired', is_flag=True, help='All that are overdue.')
@click.option('--zone', 'zones', multiple=True, help='Repeatable.')
@tpu_options.project
@click.option('--force', is_flag=True, help='Also what others made.')
@tpu_options.poll
@tpu_options.gcloud
@tpu_options.dry_run
def delete(
  name: str | None,
  expired: bool,
  zones: tuple[str, ...],
  project: str | None,
  force: bool,
  poll: float,
  executable: str,
  dry_run: bool,
) -> None:
  """Delete NAME, and see that it is gone; or all that are overdue.

  Without a state file here, --zone and --project say where NAME is.
  """
  gcloud = tpu_options.client(executable)
  settings = tpu_flow.Settings(poll=poll)
  if (name is None) is not expired:
    raise click.UsageError('give NAME, or --expired, and not both')
  if name is None:
    where = tpu_actions.places(zones, project)
    tpu_actions.sweep(gcloud, where, settings, dry_run=dry_run)
    return
  if zones and not tpu_state.path(name).exists():
    run = tpu_actions.stranger(name, tpu_options.check_zone(zones[0]), project)
  else:
    run = tpu_state.read(name)
  if dry_run:
    tpu_actions.show(gcloud, run, ('delete',))
    return
  with tpu_report.reported(gcloud, run, 'delete'):
    tpu_flow.remove(gcloud, run, settings, force=force)


@click.command(name='list')
@click.option('--zone', 'zones', multiple=True, help='Repeatable.')
@tpu_options.project
@shared_options.json_option
@tpu_options.gcloud
def list_command(
  zones: tuple[str, ...], project: str | None, as_json: bool, executable: str
) -> None:
  """Show all that this program made in some zones, with age and lifetime."""
  gcloud = tpu_options.client(executable)
  found = [
    (where, each)
    for zone, where in tpu_actions.places(zones, project)
    for each in tpu_cloud.ours(gcloud, [zone], where)
  ]
  if as_json:
    rows = [
      {**each._asdict(), 'project': where, 'expires': each.expires}
      for where, each in found
    ]
    click.echo(json.dumps(rows, indent=2))
    return
  head = ('name', 'kind', 'zone', 'project', 'state', 'age', 'lifetime')
  click.echo(
    tpu_options.table(
      [
        head,
        *(
          (
            each.name,
            'queued resource' if each.queue else 'TPU',
            each.zone,
            where,
            str(each.state),
            tpu_actions.span(time.time() - each.created)
            if each.created
            else '?',
            tpu_actions.when(each.expires or 0),
          )
          for where, each in found
        ),
      ]
    )
    if found
    else 'nothing that this program made'
  )
