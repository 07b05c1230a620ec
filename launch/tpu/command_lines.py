"""The command lines of gcloud, of which all steps are made.

Each function takes the run whose TPU is meant, and returns the arguments of one
command, without the executable. Where it takes `queue`, true means the queued
resource instead of the TPU, and `worker` is the number of a worker or 'all'.

Only flags of Google's command-line reference are used, in its general version
(no alpha, no beta):
https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm and
https://cloud.google.com/sdk/gcloud/reference/compute/tpus/queued-resources.
"""

import shlex

from dst_t5x.planning import slices

from .state_file import Run

# The label of every TPU that this program makes: when its lifetime ends.
EXPIRES = 'dst-t5x-expires'
# The folder on a worker, below its user's home.
REMOTE = 'dst_t5x_run'
# The worker's service account deletes the TPU at the end of its lifetime, and
# reads and writes buckets, which takes this scope.
SCOPE = 'https://www.googleapis.com/auth/cloud-platform'

# These end a connection to a worker that vanished after minutes, not hours.
_SSH_FLAGS = (
  '--ssh-flag=-oServerAliveInterval=30',
  '--ssh-flag=-oConnectTimeout=30',
)
_NODE = ('compute', 'tpus', 'tpu-vm')
_QUEUE = ('compute', 'tpus', 'queued-resources')


def create(run: Run) -> list[str]:
  """Makes the TPU, or puts it into the queue.

  Raises:
    ValueError: if the accelerator is unknown.

  Example:
    >>> run = Run('demo', 'us-central2-b', 'lab', 'v4-8')
    >>> create(run)[:5]
    ['compute', 'tpus', 'tpu-vm', 'create', 'demo']
  """
  slice_ = slices.parse(run.accelerator)
  options = run.options
  version = options.get('runtime_version') or slice_.runtime_version
  labels = {**run.labels, EXPIRES: str(run.expires)}
  metadata = {
    EXPIRES: str(run.expires),
    'dst-t5x-name': run.name,
    'dst-t5x-zone': run.zone,
    'dst-t5x-project': run.project,
    'dst-t5x-kind': 'queued-resources' if run.queued else 'tpu-vm',
  }
  args = [*(_QUEUE if run.queued else _NODE), 'create', run.name, *_place(run)]
  args.append(f'--accelerator-type={slice_.accelerator_type}')
  if run.queued:
    # A request that waits for the whole lifetime leaves the queue.
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


def describe(run: Run, *, queue: bool = False) -> list[str]:
  """Says in which state the TPU is."""
  group = _QUEUE if queue else _NODE
  return [*group, 'describe', run.name, *_place(run), '--format=json']


def delete(run: Run, *, queue: bool = False) -> list[str]:
  """Deletes the TPU; a queued resource takes its TPU with it."""
  group, force = (_QUEUE, ['--force']) if queue else (_NODE, [])
  return [*group, 'delete', run.name, *_place(run), *force, '--quiet']


def list_all(zone: str, project: str, *, queue: bool = False) -> list[str]:
  """Lists all TPUs of a zone, whoever made them."""
  return [
    *(_QUEUE if queue else _NODE),
    'list',
    f'--zone={zone}',
    f'--project={project}',
    '--format=json',
  ]


def ssh(run: Run, command: str, *, worker: str = 'all') -> list[str]:
  """Runs a shell command on workers; worker K's output goes to K.log."""
  return [
    *(*_NODE, 'ssh', run.name, *_place(run)),
    f'--worker={worker}',
    f'--command={command}',
    f'--output-directory={run.folder}/said',
    *_SSH_FLAGS,
    *_end(run),
  ]


def script(run: Run, name: str, *words: str, worker: str = 'all') -> list[str]:
  """Runs one of our scripts on workers."""
  return ssh(run, shell_words(name, *words), worker=worker)


def shell_words(name: str, *words: str) -> str:
  """Returns the shell command that runs one of our scripts.

  Example:
    >>> shell_words('status.sh', '0')
    'bash dst_t5x_run/worker/status.sh 0'
  """
  return shlex.join(['bash', f'{REMOTE}/worker/{name}', *words])


def send(run: Run, file: str, target: str) -> list[str]:
  """Copies a file of the run's folder to the home of all workers."""
  source = f'{run.folder}/{file}'
  target = f'{run.name}:{target}'
  return [
    *_NODE,
    'scp',
    source,
    target,
    '--worker=all',
    *_place(run),
    *_end(run),
  ]


def receive(run: Run, source: str, file: str) -> list[str]:
  """Copies a file from the home of worker 0 to this machine."""
  files = [f'{run.name}:{source}', file]
  return [*_NODE, 'scp', *files, '--worker=0', *_place(run), *_end(run)]


def _place(run: Run) -> list[str]:
  return [f'--zone={run.zone}', f'--project={run.project}']


def _end(run: Run) -> list[str]:
  inside = ['--internal-ip'] if run.options.get('internal_ips') else []
  return [*inside, '--quiet']


def _pairs(values: dict[str, str]) -> str:
  return ','.join(f'{name}={value}' for name, value in values.items())
