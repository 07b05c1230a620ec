"""`dst-t5x launch tpu`: T5X runs on Cloud TPU.

Built on gcloud, whose login it uses; nothing about credentials is stored. A
run's name, place and flags are kept in `NAME.tpu.json` in the working
directory, so that all commands after `create` need only the name.
"""

import dataclasses
import json
import os
from typing import Any

import click

from dst_t5x.commands import shared_options
from dst_t5x.planning import slices
from dst_t5x.recipes import gin_flags

from .. import launch_options
from . import (
  before_cost,
  inventory,
  run_options,
  state_file,
  step_table,
  text_columns,
  whole_run,
)
from .gcloud import Gcloud
from .session import Session
from .state_file import Run
from .step_table import Step


@click.group()
def tpu() -> None:
  """Run T5X on Cloud TPU, and leave nothing behind that costs money.

  Every TPU carries the label dst-t5x-expires; its workers delete it at that
  time; `list` shows what there is and `delete --expired` deletes what is
  overdue. After any failure the cloud is asked what exists, and the commands to
  go on and to delete are printed.

  Exit status: 0 if all is well, 1 if a step failed, 2 for a wrong argument, 75
  if the TPU was preempted, 130 after Ctrl-C.
  """
  # A plan is made on this machine, whose own accelerators stay free.
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')


@tpu.command(cls=launch_options.T5XCommand)
@run_options.accelerator
@shared_options.json_option
def plan(accelerator: str, as_json: bool, flags: tuple[str, ...]) -> None:
  """Show the accelerator, the mesh and the bytes a device, before any cost."""
  from dst_t5x.planning import plan_table, recipe_plan

  planned = recipe_plan.of_recipe(
    gin_flags.normal(flags), slices.parse(accelerator)
  )
  if as_json:
    click.echo(json.dumps(planned.to_json(), indent=2))
  else:
    click.echo(text_columns.columns(plan_table.rows(planned)))


def _help(step: Step) -> str:
  return f'{step.summary}\n\nIt is done when {step.done_when}.'


def _session(run: Run, gcloud: Gcloud, given: dict[str, Any]) -> Session:
  """Returns a session with the settings that a command has options for."""
  names = ('poll', 'max_preemptions', 'force', 'out')
  settings = {name: given[name] for name in names if name in given}
  return Session(gcloud, run, **settings)


def _do_one(step: Step, session: Session, *, dry_run: bool) -> None:
  """Does one step, or prints its commands."""
  if dry_run:
    whole_run.show(session, [step])
    return
  session.go_on = step.go_on or step.name
  with session.reported(), whole_run.preemption_noticed(session, step):
    step_table.do(step, session)
  whole_run.finish(step, session)


@tpu.command(help=_help(step_table.CREATE))
@click.argument('name')
@run_options.resource
@run_options.common
def create(name: str, gcloud: Gcloud, dry_run: bool, **given: Any) -> None:
  """Makes a TPU."""
  session = _session(run_options.new_run(name, given), gcloud, given)
  slice_ = slices.parse(session.run.accelerator)
  rows = [
    ('accelerator', slice_.accelerator_type),
    ('topology', str(slice_)),
    ('hosts', f'{slice_.hosts} of {slice_.devices_per_host} devices'),
    ('memory', f'{slice_.device_bytes / 2**30:.2f} GiB a device'),
  ]
  click.echo(text_columns.columns(rows))
  if not dry_run:
    whole_run.claim(session)
  _do_one(step_table.CREATE, session, dry_run=dry_run)


def _with_files(run: Run, given: dict[str, Any]) -> Run:
  """Returns a run with other files, of those that were given."""
  flags = tuple(gin_flags.normal(given['flags'])) or run.flags
  return dataclasses.replace(
    run, flags=flags, files=given['files'] or run.files
  )


def _with_main(run: Run, given: dict[str, Any]) -> Run:
  """Returns a run that starts another main, after a check of its flags."""
  run = dataclasses.replace(
    run,
    main=given['main'],
    flags=tuple(gin_flags.normal(given['flags'])),
    done=whole_run.without_start(run),
  )
  before_cost.check_run(
    run, allow_local=given['allow_local'], ignore_plan=given['ignore_plan']
  )
  return run


# Options of single steps, and what they change of the run.
_OPTIONS = {
  'copy': (run_options.files, _with_files),
  'run': (run_options.main, _with_main),
  'fetch': (run_options.out, None),
}


def _step_command(step: Step) -> click.Command:
  """Returns the subcommand that does one step of a run that there is."""
  options, change = _OPTIONS.get(step.name, (run_options.together(), None))

  @click.command(
    step.name,
    help=_help(step),
    cls=launch_options.T5XCommand if change else click.Command,
  )
  @click.argument('name')
  @options
  @run_options.common
  def command(name: str, gcloud: Gcloud, dry_run: bool, **given: Any) -> None:
    run = state_file.read(name)
    run = change(run, given) if change else run
    if not dry_run:
      if step.needs not in (None, *run.done):
        raise ValueError(
          f"{name}: '{step.needs}' is not done yet; `resume {name}` does all "
          'that is missing'
        )
      state_file.write(run)
    _do_one(step, _session(run, gcloud, given), dry_run=dry_run)

  return command


@tpu.command()
@click.argument('name')
@click.option('--max-hours', type=float, help='Lifetime of a TPU made anew.')
@run_options.max_preemptions
@run_options.common
def resume(
  name: str,
  max_hours: float | None,
  gcloud: Gcloud,
  dry_run: bool,
  **given: Any,
) -> None:
  """Go on with NAME: do every step that is missing, as after a preemption.

  If the TPU is gone, what is left of it is deleted and it is made again; T5X
  goes on from its last checkpoint.
  """
  session = _session(state_file.read(name), gcloud, given)
  hours = before_cost.check_hours(
    session.run.max_hours if max_hours is None else max_hours
  )
  if dry_run:
    # As if the TPU were gone, which takes the most commands.
    session.run = dataclasses.replace(
      session.run, max_hours=hours, expires=whole_run.deadline(hours)
    )
    steps = [step_table.DELETE, *whole_run.wanted(session.run)]
    whole_run.show(session, steps)
    return
  with session.reported():
    whole_run.resume(session, hours=hours)
  if state_file.path(name).exists():
    whole_run.finish(step_table.FOLLOW, session)


@tpu.command(
  cls=launch_options.T5XCommand,
  help='Do it all: '
  + ', '.join(step.name for step in step_table.STEPS)
  + '.\n\nEach is also a subcommand, whose help says more.',
)
@click.argument('name')
@run_options.main
@run_options.resource
@run_options.files
@run_options.max_preemptions
@click.option('--keep', is_flag=True, help='Do not fetch and delete.')
@run_options.common
def up(
  name: str, keep: bool, gcloud: Gcloud, dry_run: bool, **given: Any
) -> None:
  """Does all steps."""
  run = dataclasses.replace(
    run_options.new_run(name, given), files=given['files'], finish=not keep
  )
  session = _session(_with_main(run, given), gcloud, given)
  if dry_run:
    whole_run.show(session, whole_run.wanted(session.run))
    return
  whole_run.claim(session)
  with session.reported():
    whole_run.carry_out(session)
  if keep:
    whole_run.finish(step_table.FOLLOW, session)


@tpu.command(help=_help(step_table.DELETE))
@click.argument('name', required=False)
@click.option('--expired', is_flag=True, help='All that are overdue.')
@run_options.zones
@run_options.project
@click.option('--force', is_flag=True, help='Also what others made.')
@run_options.common
def delete(
  name: str | None,
  expired: bool,
  zones: tuple[str, ...],
  project: str | None,
  gcloud: Gcloud,
  dry_run: bool,
  **given: Any,
) -> None:
  """Deletes one run, or all that are overdue."""
  if (name is None) is not expired:
    raise click.UsageError('give NAME, or --expired, and not both')
  if name is None:
    places = inventory.places(zones, project)
    inventory.sweep(gcloud, places, poll=given['poll'], dry_run=dry_run)
    return
  if zones and not state_file.path(name).exists():
    # Only its place is known: look for both kinds of resources.
    run = inventory.unknown_run(
      name, before_cost.check_zone(zones[0]), project, provisioning='queued'
    )
  else:
    run = state_file.read(name)
  session = _session(run, gcloud, given)
  _do_one(step_table.DELETE, session, dry_run=dry_run)


for _step in step_table.STEPS:
  if _step.name not in tpu.commands:
    tpu.add_command(_step_command(_step))
tpu.add_command(inventory.status)
tpu.add_command(inventory.list_command)
