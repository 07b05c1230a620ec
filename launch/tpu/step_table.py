"""The steps of a run on Cloud TPU, in order: all commands follow this table.

`up` and `resume` do the steps that are missing, a subcommand does one of them,
and --dry-run prints their commands. Every step can be repeated after a failure.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from dst_t5x.delta.file import container
from dst_t5x.recipes import worker_flags

from . import (
  command_lines,
  main_status,
  parcels,
  state_file,
  workers,
)
from .resources import Resource
from .session import Session, our_command

_BUNDLE = 'dst_t5x_bundle.tar'
_RECIPE = 'dst_t5x_recipe.tar'
_DELTA = f'{command_lines.REMOTE}/delta.safetensors'
# How often to look whether what was deleted is gone (count).
_LOOKS = 6


class StillThere(ValueError):
  """A resource was deleted and is there all the same."""


class Command(NamedTuple):
  """A command of a step.

  Attributes:
    args: arguments of gcloud.
    sign: the line by which every worker says that it is done, as
      `workers.run_all` takes it; None if gcloud's exit status says it.
  """

  args: list[str]
  sign: str | None = None


Outputs = Mapping[int, str]  # worker → what it printed


def call_all(session: Session, commands: Sequence[Command]) -> Outputs:
  """Runs the commands of a step one after another.

  Args:
    session: the run.
    commands: of the step.

  Returns:
    What the workers printed, of the last command that has a sign.

  Raises:
    ValueError: if a command fails, or a worker does not print its sign.
  """
  outputs: Outputs = {}
  for args, sign in commands:
    if sign is None:
      session.gcloud.call(args)
    else:
      outputs = workers.run_all(session, args, sign)
  return outputs


class Step(NamedTuple):
  """A step of a run.

  Attributes:
    name: as a subcommand and in the state file.
    summary: what it does, as the help says it.
    done_when: how it is seen that the step is done.
    needs: the step that must be done before it, or None.
    commands: returns its commands. For a step that asks again and again, each
      question is there once.
    prepare: what comes before the commands on this machine.
    perform: runs the commands.
    check: raises an error if the step is not done although all commands were.
    record: notes that the step is done; by default in the state file.
    outcome: what its subcommand prints at the end, for `str.format` with `name`
      and `delta`.
    go_on: subcommand that goes on after a failure; None for its own.
  """

  name: str
  summary: str
  done_when: str
  needs: str | None
  commands: Callable[[Session], list[Command]]
  prepare: Callable[[Session], None] = lambda session: None
  perform: Callable[[Session, Sequence[Command]], Outputs] = call_all
  check: Callable[[Session, Outputs], None] = lambda session, outputs: None
  record: Callable[[Session], None] | None = None
  outcome: str = ''
  go_on: str | None = None


def do(step: Step, session: Session) -> None:
  """Does a step, and notes that it is done.

  Args:
    step: of `STEPS`.
    session: the run.

  Raises:
    ValueError: if the step fails.
    OSError: if a file cannot be read or written.
  """
  commands = step.commands(session)
  step.prepare(session)
  step.check(session, step.perform(session, commands))
  if step.record is None:
    session.run = state_file.finished(session.run, step.name)
  else:
    step.record(session)


# create


def _create(session: Session) -> list[Command]:
  run = session.run
  looks = (command_lines.describe(run, queue=queue) for queue in run.kinds)
  return [Command(args) for args in (command_lines.create(run), *looks)]


def _make(session: Session, commands: Sequence[Command]) -> Outputs:
  """Makes the TPU unless it is there, and waits until it is ready."""
  run = session.run
  if session.look(queue=run.queued).state is None:
    session.gcloud.call(commands[0].args)
  for queue in run.kinds:
    ready = 'ACTIVE' if queue else 'READY'
    while (resource := session.look(queue=queue)).state != ready:
      check_coming(resource, run.expires)
      time.sleep(session.poll)
  return {}


def check_coming(resource: Resource, expires: int) -> None:
  """Refuses to wait for a resource that will not be ready.

  Args:
    resource: what is waited for.
    expires: end of the lifetime (seconds since 1970).

  Raises:
    ValueError: if it is lost, or the lifetime is over.
  """
  if resource.lost:
    raise ValueError(f'there is no TPU to wait for: {resource}')
  if time.time() > expires:
    raise ValueError(
      f'the lifetime is over, and there is no TPU yet: {resource}'
    )


# install, copy, run


def _install(session: Session) -> list[Command]:
  run, folder = session.run, command_lines.REMOTE
  commits = (run.commits[name] for name in ('t5x', 'airio', 'jestimator'))
  script = command_lines.shell_words('install.sh', *commits)
  unpack = f'mkdir -p {folder} && tar -xf {_BUNDLE} -C {folder}'
  return [
    Command(command_lines.send(run, 'bundle.tar', _BUNDLE)),
    Command(
      command_lines.ssh(run, f'{unpack} && {script}'),
      sign='dst_t5x worker {worker} ok',
    ),
  ]


def _check_versions(session: Session, outputs: Outputs) -> None:
  """Refuses workers that have different versions."""
  del session
  versions = {
    worker: '; '.join(re.findall(r'^dst_t5x version (.*)$', text, re.M))
    for worker, text in outputs.items()
  }
  for worker, installed in versions.items():
    if installed != versions[0]:
      raise workers.WorkersFailed(
        f'worker {worker} has {installed}, but worker 0 has {versions[0]}: '
        'name commits with --t5x-commit, --airio-commit and '
        '--jestimator-commit'
      )


def _copy(session: Session) -> list[Command]:
  folder = f'{command_lines.REMOTE}/recipe'
  unpack = (
    f'mkdir -p {folder} && tar -xf {_RECIPE} -C {folder} && echo dst_t5x copied'
  )
  return [
    Command(command_lines.send(session.run, 'recipe.tar', _RECIPE)),
    Command(command_lines.ssh(session.run, unpack), sign='dst_t5x copied'),
  ]


def _start(session: Session) -> list[Command]:
  run = session.run
  words = [str(run.attempt + 1), f't5x.{run.main}']
  words += worker_flags.for_workers(run.flags)
  return [
    Command(
      command_lines.script(run, 'start.sh', *words),
      sign='dst_t5x worker {worker} started( already)?',
    )
  ]


def _count_attempt(session: Session) -> None:
  # Counted before the command, so that workers do not take this start for one
  # that they have carried out already.
  session.update(attempt=session.run.attempt + 1)


# follow


def _ask(session: Session) -> list[Command]:
  return [Command(command_lines.script(session.run, 'status.sh', '0'))]


def _follow(session: Session, commands: Sequence[Command]) -> Outputs:
  del commands  # The same with other offsets.
  main_status.follow(session)
  return {}


# fetch


def _fetch(session: Session) -> list[Command]:
  run = session.run
  folder = worker_flags.output_folder('train', run.flags) or 'MODEL_DIR'
  return [
    Command(
      command_lines.script(run, 'export.sh', folder, _DELTA, worker='0'),
      sign='dst_t5x exported .*',
    ),
    Command(command_lines.receive(run, _DELTA, session.delta_file)),
  ]


def _check_model_dir(session: Session) -> None:
  if worker_flags.output_folder('train', session.run.flags) is None:
    raise ValueError('no flag of the run binds MODEL_DIR: nothing to fetch')


def _check_delta(session: Session, outputs: Outputs) -> None:
  del outputs
  container.read(session.delta_file)


# delete


def _delete(session: Session) -> list[Command]:
  run = session.run
  return [
    Command(line(run, queue=queue))
    for queue in run.kinds
    for line in (command_lines.delete, command_lines.describe)
  ]


def remove(session: Session, commands: Sequence[Command] = ()) -> Outputs:
  """Deletes all that the run made, and waits until it is gone.

  Args:
    session: the run; its state file stays.
    commands: not used, as what is gone is not deleted again.

  Raises:
    StillThere: if a resource is there a while after it was deleted.
    ValueError: if one cannot be deleted, or was not made by this program.
  """
  del commands
  for queue in session.run.kinds:
    resource = session.look(queue=queue)
    if resource.state in (None, 'DELETING'):
      continue
    if resource.expires is None and not session.force:
      raise ValueError(
        f'{resource} It lacks the label {command_lines.EXPIRES}: somebody else '
        'made it; --force deletes it all the same'
      )
    session.gcloud.call(command_lines.delete(session.run, queue=queue))
  left: list[Resource] = []
  for _ in range(_LOOKS):
    left = [each for each in session.look_all() if each.state is not None]
    if not left:
      return {}
    time.sleep(session.poll)
  raise StillThere('deleted, but: ' + ' '.join(map(str, left)))


def _forget(session: Session) -> None:
  state_file.remove(session.run)


STEPS = (
  Step(
    'create',
    'Make the TPU NAME, on demand, as a spot TPU, or through the queue.',
    done_when='the cloud says that the TPU is ready',
    needs=None,
    commands=_create,
    prepare=lambda session: parcels.write_lifetime(session.run),
    perform=_make,
    outcome=f'{{name}} is ready: {our_command("install", "{name}")}',
    go_on='resume',
  ),
  Step(
    'install',
    'Install the package, T5X and pinned versions on every worker of NAME.',
    done_when='every worker imports them, and all have the same commits',
    needs='create',
    commands=_install,
    prepare=lambda session: parcels.write_bundle(session.run),
    check=_check_versions,
    outcome='{name}: install done',
  ),
  Step(
    'copy',
    'Copy the gin files from here, and --file, to every worker of NAME.',
    done_when='every worker has unpacked them',
    needs='create',
    commands=_copy,
    prepare=lambda session: parcels.write_recipe(session.run),
    outcome='{name}: copy done',
  ),
  Step(
    'run',
    'Start t5x.train, t5x.eval or t5x.infer on every worker of NAME. The main '
    'goes on if this machine goes away.',
    done_when='every worker has started the main',
    needs='create',
    commands=_start,
    prepare=_count_attempt,
    outcome='{name}: run done',
    go_on='resume',
  ),
  Step(
    'follow',
    "Show the log of NAME's worker 0 until the main ends on all workers.",
    done_when='the main has ended with exit status 0 on every worker',
    needs='run',
    commands=_ask,
    perform=_follow,
    outcome='{name}: its TPU is there and billed\n'
    f'  {our_command("fetch", "{name}")}\n'
    f'  {our_command("delete", "{name}")}',
    go_on='resume',
  ),
  Step(
    'fetch',
    "Export the delta of NAME's last checkpoint, bring it here and check it.",
    done_when='the file here has been read and its hashes are right',
    needs=None,
    commands=_fetch,
    prepare=_check_model_dir,
    check=_check_delta,
    outcome='{delta}',
  ),
  Step(
    'delete',
    'Delete NAME, and see that it is gone; or all that are overdue.',
    done_when='the cloud says that there is no such resource',
    needs=None,
    commands=_delete,
    perform=remove,
    record=_forget,
    outcome='{name} is gone; nothing of it is billed',
  ),
)
CREATE, INSTALL, COPY, RUN, FOLLOW, FETCH, DELETE = STEPS
# A TPU that was taken away is made again in these steps only.
WORK = STEPS[: STEPS.index(FETCH)]
