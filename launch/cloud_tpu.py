"""T5X runs on Cloud TPU: `python -m dst_t5x.launch.cloud_tpu`.

Built on gcloud, whose login it uses; nothing about credentials is stored. A
run's name, place and flags are kept in `NAME.tpu.json` in the working
directory, so that all commands after `create` need only the name.

Nothing is forgotten: every TPU carries the label `dst-t5x-expires`; its workers
delete it at that time (`worker/lifetime.sh`); `list` shows what there is and
`delete --expired` deletes what is overdue. After any failure the cloud is asked
what exists, and the commands to go on and to delete are printed.

Exit status: 0 if all is well, 1 if a step failed, 2 for a wrong argument, 75 if
the TPU was preempted, 130 after Ctrl-C.
"""

import dataclasses
import json
import os
from typing import Any

import click

from dst_t5x.commands import cli, shared_options
from dst_t5x.launch import (
  tpu_actions,
  tpu_cloud,
  tpu_flags,
  tpu_flow,
  tpu_inventory,
  tpu_options,
  tpu_report,
  tpu_state,
  tpu_steps,
)
from dst_t5x.planning import slices


class _UserError(cli.UserError):
  def show(self, file: Any = None) -> None:
    """Prints the sentence in red to standard error."""
    click.secho(
      f'cloud_tpu: {self.format_message()}', file=file, err=True, fg='red'
    )


class _Interrupted(_UserError):
  exit_code = 130


class _Group(click.Group):
  def invoke(self, ctx: click.Context) -> Any:
    """Runs the command; an error becomes a sentence."""
    try:
      return super().invoke(ctx)
    except KeyboardInterrupt as error:
      raise _Interrupted('interrupted') from error
    except BrokenPipeError:
      raise
    except (ValueError, OSError, NotImplementedError) as error:
      raise _UserError(cli.sentence(error)) from error


@click.group(
  cls=_Group, context_settings={'help_option_names': ['-h', '--help']}
)
def main() -> None:
  """Run T5X on Cloud TPU, and leave nothing behind that costs money."""
  # A plan is made on this machine, whose own accelerators stay free.
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')


@main.command()
@tpu_options.accelerator
@shared_options.json_option
@tpu_options.flags
def plan(accelerator: str, as_json: bool, flags: tuple[str, ...]) -> None:
  """Show the accelerator, the mesh and the bytes a device, before any cost.

  FLAGS, after --, are those of T5X.
  """
  from dst_t5x.planning import plan_table, recipe_plan

  found = recipe_plan.of_recipe(
    tpu_flags.normal(flags), slices.parse(accelerator)
  )
  if as_json:
    click.echo(json.dumps(found.to_json(), indent=2))
  else:
    click.echo(tpu_options.table(plan_table.rows(found)))


@main.command()
@click.argument('name')
@tpu_options.resource
@tpu_options.package
@tpu_options.poll
@tpu_options.gcloud
@tpu_options.dry_run
def create(
  name: str, poll: float, executable: str, dry_run: bool, **given: Any
) -> None:
  """Make the TPU NAME, on demand, as a spot TPU, or through the queue."""
  gcloud = tpu_options.client(executable)
  run = tpu_options.new_run(name, given)
  click.echo(tpu_options.table(tpu_options.slice_rows(run.accelerator)))
  if dry_run:
    tpu_actions.show(gcloud, run, ('create',))
    return
  tpu_actions.claim(gcloud, run)
  settings = tpu_flow.Settings(poll=poll)
  with tpu_report.reported(gcloud, run, 'resume') as place:
    tpu_flow.advance(gcloud, place, settings)
  click.echo(f'{name} is ready: {tpu_report.command("install", name)}')


@main.command()
@click.argument('name')
@tpu_options.gcloud
@tpu_options.dry_run
def install(name: str, executable: str, dry_run: bool) -> None:
  """Install the package, T5X and pinned versions on every worker of NAME."""
  run = tpu_state.read(name)
  tpu_actions.step(
    'install', tpu_steps.install, run, executable, dry_run=dry_run
  )


@main.command()
@click.argument('name')
@tpu_options.files
@tpu_options.gcloud
@tpu_options.dry_run
@tpu_options.flags
def copy(
  name: str,
  files: tuple[str, ...],
  executable: str,
  dry_run: bool,
  flags: tuple[str, ...],
) -> None:
  """Copy the gin files that FLAGS name, and --file, to every worker of NAME."""
  run = tpu_state.read(name)
  run = dataclasses.replace(
    run,
    flags=tuple(tpu_flags.normal(flags)) or run.flags,
    files=files or run.files,
  )
  tpu_actions.step('copy', tpu_steps.copy, run, executable, dry_run=dry_run)


@main.command(name='run')
@click.argument('name')
@tpu_options.main
@tpu_options.local_model_dir
@tpu_options.ignore_plan
@tpu_options.gcloud
@tpu_options.dry_run
@tpu_options.flags
def run_command(
  name: str,
  main: str,
  allow_local_model_dir: bool,
  ignore_plan: bool,
  executable: str,
  dry_run: bool,
  flags: tuple[str, ...],
) -> None:
  """Start t5x.train, t5x.eval or t5x.infer on every worker of NAME.

  FLAGS, after --, are those of T5X. The main goes on if this machine goes away.
  """
  run = tpu_state.read(name)
  run = dataclasses.replace(
    run,
    main=main,
    flags=tuple(tpu_flags.normal(flags)),
    done=tuple(each for each in run.done if each not in ('run', 'follow')),
  )
  tpu_actions.check(run, local=allow_local_model_dir, ignore=ignore_plan)
  tpu_actions.step(
    'run',
    tpu_steps.start,
    run,
    executable,
    dry_run=dry_run,
    go_on='resume',
  )


@main.command()
@click.argument('name')
@tpu_options.poll
@tpu_options.gcloud
@tpu_options.dry_run
def follow(name: str, poll: float, executable: str, dry_run: bool) -> None:
  """Show the log of NAME's worker 0 until the main ends on all workers."""
  gcloud = tpu_options.client(executable)
  run = tpu_state.read(name)
  if dry_run:
    tpu_actions.show(gcloud, run, ('follow',))
    return
  tpu_actions.need(run, 'run')
  with tpu_report.reported(gcloud, run, 'resume') as place:
    tpu_flow.watch(gcloud, place, tpu_flow.Settings(poll=poll))
  tpu_actions.ended(name)


@main.command()
@click.argument('name')
@click.option('--max-hours', type=float, help='Lifetime of a TPU made anew.')
@tpu_options.max_preemptions
@tpu_options.poll
@tpu_options.gcloud
@tpu_options.dry_run
def resume(
  name: str,
  max_hours: float | None,
  max_preemptions: int,
  poll: float,
  executable: str,
  dry_run: bool,
) -> None:
  """Go on with NAME: do every step that is missing, as after a preemption.

  If the TPU is gone, what is left of it is deleted and it is made again; T5X
  goes on from its last checkpoint.
  """
  gcloud = tpu_options.client(executable)
  run = tpu_state.read(name)
  hours = tpu_options.check_hours(
    run.max_hours if max_hours is None else max_hours
  )
  if dry_run:
    # As if the TPU were gone, which takes the most commands.
    new = dataclasses.replace(
      run, max_hours=hours, expires=tpu_flow.deadline(hours)
    )
    steps = tpu_flow.STEPS[: None if run.finish else 5]
    tpu_actions.show(gcloud, new, ('delete', *steps))
    return
  settings = tpu_flow.Settings(poll=poll, max_preemptions=max_preemptions)
  with tpu_report.reported(gcloud, run, 'resume') as place:
    seen = tpu_cloud.look_all(gcloud, run)
    # A queue that has not given the TPU yet has not lost it.
    waiting = run.queued and not seen[0].lost and 'create' not in run.done
    if any(each.lost for each in seen) and not waiting:
      place.run = tpu_state.update(run, max_hours=hours)
      tpu_flow.rebuild(
        gcloud, place, settings, expires=tpu_flow.deadline(hours)
      )
    elif 'copy' in run.done and run.attempt:
      # It may have been started, though its start was not heard of.
      place.run = tpu_actions.restarted(gcloud, run)
    tpu_flow.carry_out(gcloud, place, settings)
  if tpu_state.path(name).exists():
    tpu_actions.ended(name)


@main.command()
@click.argument('name')
@click.option('--out', metavar='FILE', help='Default: NAME.delta.safetensors.')
@tpu_options.gcloud
@tpu_options.dry_run
def fetch(name: str, out: str | None, executable: str, dry_run: bool) -> None:
  """Export the delta of NAME's last checkpoint, bring it here and check it."""
  gcloud = tpu_options.client(executable)
  run = tpu_state.read(name)
  if dry_run:
    tpu_actions.show(gcloud, run, ('fetch',))
    return
  file = out or tpu_flow.delta_name(run)
  with tpu_report.reported(gcloud, run, 'fetch') as place:
    place.run = tpu_steps.fetch(gcloud, run, file)
  click.echo(file)


@main.command()
@click.argument('name')
@tpu_options.main
@tpu_options.resource
@tpu_options.package
@tpu_options.files
@tpu_options.local_model_dir
@tpu_options.ignore_plan
@tpu_options.max_preemptions
@click.option('--keep', is_flag=True, help='Do not fetch and delete.')
@tpu_options.poll
@tpu_options.gcloud
@tpu_options.dry_run
@tpu_options.flags
def up(
  name: str,
  main: str,
  files: tuple[str, ...],
  allow_local_model_dir: bool,
  ignore_plan: bool,
  max_preemptions: int,
  keep: bool,
  poll: float,
  executable: str,
  dry_run: bool,
  flags: tuple[str, ...],
  **given: Any,
) -> None:
  """Do it all: create, install, copy, run, follow, fetch, delete.

  FLAGS, after --, are those of T5X.
  """
  gcloud = tpu_options.client(executable)
  run = dataclasses.replace(
    tpu_options.new_run(name, given),
    main=main,
    flags=tuple(tpu_flags.normal(flags)),
    files=files,
    finish=not keep,
  )
  tpu_actions.check(run, local=allow_local_model_dir, ignore=ignore_plan)
  if dry_run:
    tpu_actions.show(gcloud, run, tpu_flow.STEPS[: 5 if keep else None])
    return
  tpu_actions.claim(gcloud, run)
  settings = tpu_flow.Settings(poll=poll, max_preemptions=max_preemptions)
  with tpu_report.reported(gcloud, run, 'resume') as place:
    tpu_flow.carry_out(gcloud, place, settings)
  if keep:
    tpu_actions.ended(name)


for _command in (
  tpu_inventory.status,
  tpu_inventory.list_command,
  tpu_inventory.delete,
):
  main.add_command(_command)

if __name__ == '__main__':
  main(prog_name='cloud_tpu')
