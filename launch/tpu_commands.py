"""The command lines of gcloud that everything here is made of.

Pure functions from a run to the arguments of one command, without the
executable. Only flags of Google's command-line reference are used, in its
general version (no alpha, no beta):
https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm and
https://cloud.google.com/sdk/gcloud/reference/compute/tpus/queued-resources.
"""

import shlex
from collections.abc import Sequence

from dst_t5x.launch import tpu_state
from dst_t5x.planning import slices

# On every TPU that this launcher makes: when it is to be gone.
EXPIRES = 'dst-t5x-expires'
# The folder on a worker, below its user's home.
REMOTE = 'dst_t5x_run'
BUNDLE = 'dst_t5x_bundle.tar'
RECIPE = 'dst_t5x_recipe.tar'
DELTA = 'delta.safetensors'
# The worker's service account deletes the TPU at the end of its lifetime, and
# reads and writes buckets, which takes this scope.
SCOPE = 'https://www.googleapis.com/auth/cloud-platform'

# A worker that vanished must not be waited for longer than minutes.
_SSH_FLAGS = (
  '--ssh-flag=-oServerAliveInterval=30',
  '--ssh-flag=-oConnectTimeout=30',
)
_NODE = ('compute', 'tpus', 'tpu-vm')
_QUEUE = ('compute', 'tpus', 'queued-resources')


def create(run: tpu_state.Run) -> list[str]:
  """Returns the command that makes the TPU, or asks for it in the queue.

  Args:
    run: what to make.

  Returns:
    Arguments of gcloud.

  Raises:
    ValueError: if the accelerator is unknown.

  Example:
    >>> run = tpu_state.Run('demo', 'us-central2-b', 'lab', 'v4-8')
    >>> create(run)[:5]
    ['compute', 'tpus', 'tpu-vm', 'create', 'demo']
  """
  found = slices.parse(run.accelerator)
  options = run.options
  version = options.get('runtime_version') or found.runtime_version
  labels = {**run.labels, EXPIRES: str(run.expires)}
  metadata = {
    EXPIRES: str(run.expires),
    'dst-t5x-name': run.name,
    'dst-t5x-zone': run.zone,
    'dst-t5x-project': run.project,
    'dst-t5x-kind': 'queued-resources' if run.queued else 'tpu-vm',
  }
  args = [*(_QUEUE if run.queued else _NODE), 'create', run.name, *_place(run)]
  args.append(f'--accelerator-type={found.accelerator_type}')
  if run.queued:
    # A request that is not met within the lifetime leaves the queue.
    seconds = round(run.max_hours * 3600)
    args += [
      f'--runtime-version={version}',
      f'--node-id={run.name}',
      f'--valid-until-duration={seconds}s',
    ]
  else:
    args.append(f'--version={version}')
  if run.spot:
    args.append('--spot')
  args += [
    f'--labels={_pairs(labels)}',
    f'--metadata={_pairs(metadata)}',
    f'--metadata-from-file=startup-script={run.folder}/lifetime.sh',
    f'--scopes={SCOPE}',
  ]
  for name in ('network', 'subnetwork', 'service_account'):
    if options.get(name):
      args.append(f'--{name.replace("_", "-")}={options[name]}')
  if options.get('internal_ips'):
    args.append('--internal-ips')
  return [*args, '--quiet']


def describe(run: tpu_state.Run, *, queue: bool = False) -> list[str]:
  """Returns the command that says in which state the TPU is.

  Args:
    run: whose TPU.
    queue: the queued resource instead.

  Returns:
    Arguments of gcloud.
  """
  group = _QUEUE if queue else _NODE
  return [*group, 'describe', run.name, *_place(run), '--format=json']


def delete(run: tpu_state.Run, *, queue: bool = False) -> list[str]:
  """Returns the command that deletes the TPU.

  Args:
    run: whose TPU.
    queue: the queued resource instead, together with its TPU.

  Returns:
    Arguments of gcloud.
  """
  group, force = (_QUEUE, ['--force']) if queue else (_NODE, [])
  return [*group, 'delete', run.name, *_place(run), *force, '--quiet']


def list_all(zone: str, project: str, *, queue: bool = False) -> list[str]:
  """Returns the command that lists all TPUs of a zone.

  Args:
    zone: one zone.
    project: the project that pays.
    queue: the queued resources instead.

  Returns:
    Arguments of gcloud.
  """
  return [
    *(_QUEUE if queue else _NODE),
    'list',
    f'--zone={zone}',
    f'--project={project}',
    '--format=json',
  ]


def ssh(run: tpu_state.Run, command: str, *, worker: str = 'all') -> list[str]:
  """Returns the command that runs a shell command on workers.

  Args:
    run: whose TPU.
    command: for the worker's shell.
    worker: a number, or 'all'.

  Returns:
    Arguments of gcloud; what worker K says goes to the file K.log.
  """
  return [
    *_NODE,
    'ssh',
    run.name,
    *_place(run),
    f'--worker={worker}',
    f'--command={command}',
    f'--output-directory={run.folder}/said',
    *_SSH_FLAGS,
    *_inside(run),
    '--quiet',
  ]


def send(run: tpu_state.Run, file: str, target: str) -> list[str]:
  """Returns the command that copies a file to the home of all workers.

  Args:
    run: whose TPU.
    file: on this machine.
    target: its name there.

  Returns:
    Arguments of gcloud.
  """
  return [
    *_NODE,
    'scp',
    file,
    f'{run.name}:{target}',
    '--worker=all',
    *_end(run),
  ]


def install(run: tpu_state.Run) -> list[list[str]]:
  """Returns the commands that install the package on all workers.

  Args:
    run: whose TPU; `package` and `commits` say what.

  Returns:
    Arguments of gcloud for each command, in order.
  """
  unpack = f'mkdir -p {REMOTE} && tar -xf {BUNDLE} -C {REMOTE}'
  script = shlex.join(
    [
      'bash',
      f'{REMOTE}/worker/install.sh',
      *(run.commits[name] for name in ('t5x', 'airio', 'jestimator')),
    ]
  )
  return [
    send(run, f'{run.folder}/bundle.tar', BUNDLE),
    ssh(run, f'{unpack} && {script}'),
  ]


def copy(run: tpu_state.Run) -> list[list[str]]:
  """Returns the commands that copy the recipe to all workers.

  Args:
    run: whose TPU.

  Returns:
    Arguments of gcloud for each command, in order.
  """
  folder = f'{REMOTE}/recipe'
  return [
    send(run, f'{run.folder}/recipe.tar', RECIPE),
    ssh(
      run,
      f'mkdir -p {folder} && tar -xf {RECIPE} -C {folder} && '
      'echo dst_t5x copied',
    ),
  ]


def start(run: tpu_state.Run, flags: Sequence[str]) -> list[str]:
  """Returns the command that starts the main on all workers.

  Args:
    run: whose TPU; `main` and `attempt` say what.
    flags: for T5X's main.

  Returns:
    Arguments of gcloud.
  """
  words = [str(run.attempt), f't5x.{run.main}', *flags]
  return ssh(run, _script('start.sh', *words))


def poll(run: tpu_state.Run, offset: int) -> list[str]:
  """Returns the command that asks all workers how their main is doing.

  Args:
    run: whose TPU.
    offset: how much of worker 0's log is known here (bytes).

  Returns:
    Arguments of gcloud.
  """
  return ssh(run, _script('status.sh', str(offset)))


def stop(run: tpu_state.Run) -> list[str]:
  """Returns the command that stops the main on all workers.

  Args:
    run: whose TPU.

  Returns:
    Arguments of gcloud.
  """
  return ssh(run, _script('stop.sh'))


def fetch(run: tpu_state.Run, model_dir: str, file: str) -> list[list[str]]:
  """Returns the commands that export the last delta and bring it here.

  Args:
    run: whose TPU.
    model_dir: T5X's MODEL_DIR.
    file: where to put it on this machine.

  Returns:
    Arguments of gcloud for each command, in order.
  """
  there = f'{REMOTE}/{DELTA}'
  return [
    ssh(run, _script('export.sh', model_dir, there), worker='0'),
    [*_NODE, 'scp', f'{run.name}:{there}', file, '--worker=0', *_end(run)],
  ]


def _script(name: str, *words: str) -> str:
  return shlex.join(['bash', f'{REMOTE}/worker/{name}', *words])


def _end(run: tpu_state.Run) -> list[str]:
  return [*_place(run), *_inside(run), '--quiet']


def _place(run: tpu_state.Run) -> list[str]:
  return [f'--zone={run.zone}', f'--project={run.project}']


def _inside(run: tpu_state.Run) -> list[str]:
  return ['--internal-ip'] if run.options.get('internal_ips') else []


def _pairs(values: dict[str, str]) -> str:
  return ','.join(f'{name}={value}' for name, value in values.items())
