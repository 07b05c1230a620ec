"""A stand-in for gcloud that accepts only what Google documents.

It knows the general versions (no alpha, no beta) of these commands, with the
flags that their reference pages list, below
https://cloud.google.com/sdk/gcloud/reference/compute/tpus/ (read in the
versions of 2025):

  tpu-vm/create  tpu-vm/describe  tpu-vm/delete  tpu-vm/list  tpu-vm/ssh
  tpu-vm/scp  queued-resources/create  queued-resources/describe
  queued-resources/delete  queued-resources/list

Flags of all commands: https://cloud.google.com/sdk/gcloud/reference. States
and fields of what `--format=json` prints: the REST pages
https://cloud.google.com/tpu/docs/reference/rest/v2/projects.locations.nodes and
…/projects.locations.queuedResources, and, for the states of a queued resource,
https://cloud.google.com/tpu/docs/queued-resources. Workers of a type:
https://cloud.google.com/tpu/docs/v4, …/v5e, …/v5p, …/v6e.

What the pages do not say, and is done here as programs that use gcloud take it:
the wording of errors (only the code's name, NOT_FOUND or ALREADY_EXISTS, is
relied on), and that --output-directory takes standard error, too. `--zone=-`,
for all zones, is in use, but not on the pages, and refused.

Its world is the folder in DST_T5X_GCLOUD_WORLD: `world.json` (what exists),
`calls.jsonl` (what was asked), `rules.json` (what is to fail), `workers/`
(their homes). ssh runs its command in a real bash there, with `bin/` first on
the path, where python3, git and curl are stand-ins, too.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

# GCLOUD_WIDE_FLAG on every reference page.
WIDE = {
  '--account': True,
  '--billing-project': True,
  '--configuration': True,
  '--flags-file': True,
  '--flatten': True,
  '--format': True,
  '--help': False,
  '--impersonate-service-account': True,
  '--log-http': False,
  '--project': True,
  '--quiet': False,
  '--trace-token': True,
  '--user-output-enabled': False,
  '--verbosity': True,
}
_SSH = {
  '--dry-run': False,
  '--force-key-file-overwrite': False,
  '--internal-ip': False,
  '--plain': False,
  '--ssh-key-file': True,
  '--strict-host-key-checking': True,
  '--worker': True,
  '--zone': True,
  '--ssh-key-expiration': True,
  '--ssh-key-expire-after': True,
}
_LIST = {
  '--zone': True,
  '--filter': True,
  '--limit': True,
  '--page-size': True,
  '--sort-by': True,
  '--uri': False,
}
_CREATE = {
  '--zone': True,
  '--accelerator-type': True,
  '--topology': True,
  '--type': True,
  '--async': False,
  '--boot-disk': True,
  '--data-disk': True,
  '--description': True,
  '--internal-ips': False,
  '--labels': True,
  '--metadata': True,
  '--metadata-from-file': True,
  '--network': True,
  '--range': True,
  '--reserved': False,
  '--scopes': True,
  '--service-account': True,
  '--shielded-secure-boot': False,
  '--spot': False,
  '--subnetwork': True,
  '--tags': True,
}
# Flag → whether it takes a value.
FLAGS = {
  'tpu-vm create': {
    **_CREATE,
    '--version': True,
    '--preemptible': False,
    '--queue-count': True,
  },
  'tpu-vm describe': {'--zone': True},
  'tpu-vm delete': {'--zone': True, '--async': False},
  'tpu-vm list': _LIST,
  'tpu-vm ssh': {
    **_SSH,
    '--ssh-flag': True,
    '--command': True,
    '--output-directory': True,
  },
  'tpu-vm scp': {
    **_SSH,
    '--compress': False,
    '--recurse': False,
    '--scp-flag': True,
  },
  'queued-resources create': {
    **_CREATE,
    '--runtime-version': True,
    '--node-id': True,
    '--node-count': True,
    '--node-prefix': True,
    '--guaranteed': False,
    '--valid-after-duration': True,
    '--valid-after-time': True,
    '--valid-until-duration': True,
    '--valid-until-time': True,
    '--reservation-host-folder': True,
    '--reservation-host-organization': True,
    '--reservation-host-project': True,
  },
  'queued-resources describe': {'--zone': True},
  'queued-resources delete': {
    '--zone': True,
    '--async': False,
    '--force': False,
  },
  'queued-resources list': _LIST,
}
REQUIRED = {
  'tpu-vm create': ['--version'],
  'queued-resources create': [
    '--runtime-version',
    '--accelerator-type',
    '--node-id',
  ],
}
POSITIONAL = {'list': 0, 'scp': 2}  # all others: 1


class Wrong(Exception):
  """A command that gcloud refuses, with its exit status."""

  def __init__(self, message, status=1):
    super().__init__(message)
    self.status = status


class World:
  def __init__(self, folder):
    self.folder = pathlib.Path(folder)
    self.file = self.folder / 'world.json'
    self.content = (
      json.loads(self.file.read_text())
      if self.file.exists()
      else {'nodes': {}, 'queues': {}}
    )
    self.nodes = self.content['nodes']
    self.queues = self.content['queues']

  def save(self):
    new = self.folder / 'world.json.new'
    new.write_text(json.dumps(self.content, indent=1))
    new.replace(self.file)

  def home(self, name, worker):
    return self.folder / 'workers' / name / str(worker)

  def rule(self, when, **about):
    """Takes the first rule that fits; each works `times` times."""
    file = self.folder / 'rules.json'
    rules = json.loads(file.read_text()) if file.exists() else []
    for rule in rules:
      fits = (
        rule.get('when', 'before') == when
        and rule['what'] in about['text']
        and rule.get('worker') == about.get('worker')
        and rule.get('times', 1) > 0
      )
      if fits and rule.get('skip', 0):
        rule['skip'] -= 1
      elif fits:
        rule['times'] = rule.get('times', 1) - 1
        file.write_text(json.dumps(rules))
        return rule
    file.write_text(json.dumps(rules))
    return None


def parse(command, words):
  """Returns flags and positionals; refuses what is not documented."""
  known = {**WIDE, **FLAGS[command]}
  flags, rest = {}, []
  words = list(words)
  while words:
    word = words.pop(0)
    if not word.startswith('--'):
      rest.append(word)
      continue
    name, equals, value = word.partition('=')
    if name not in known:
      raise Wrong(f'unrecognized arguments: {word}', 2)
    if known[name] and not equals:
      if not words:
        raise Wrong(f'argument {name}: expected one argument', 2)
      value = words.pop(0)
    if not known[name] and equals:
      raise Wrong(f'argument {name}: ignored explicit argument {value!r}', 2)
    if name in flags and name not in ('--ssh-flag', '--scp-flag'):
      raise Wrong(f'argument {name}: given twice', 2)
    flags[name] = value if known[name] else True
  for name in REQUIRED.get(command, []):
    if name not in flags:
      raise Wrong(f'argument {name}: Must be specified.', 2)
  count = POSITIONAL.get(command.split()[1], 1)
  if len(rest) != count:
    raise Wrong(f'expected {count} positional arguments, not {rest}', 2)
  for name in ('--zone', '--project'):
    if not flags.get(name):
      raise Wrong(f'argument {name}: Must be specified.', 2)
  if not re.fullmatch(r'[a-z]+-[a-z]+\d+-[a-z]', flags['--zone']):
    raise Wrong(f'argument --zone: no zone: {flags["--zone"]}', 2)
  if flags.get('--format', 'json') != 'json':
    raise Wrong('argument --format: the stand-in knows json only', 2)
  return flags, rest


def workers_of(accelerator):
  """Returns the number of workers of an accelerator type."""
  match = re.fullmatch(r'(v2|v3|v4|v5litepod|v5p|v6e)-(\d+)', accelerator)
  if not match:
    raise Wrong(f'argument --accelerator-type: Invalid: {accelerator}', 2)
  kind, count = match[1], int(match[2])
  if kind in ('v5litepod', 'v6e'):
    return 1 if count <= 8 else count // 4
  return max(1, count // 8)


def pairs(text):
  """Reads KEY=VALUE,…"""
  result = {}
  for pair in text.split(',') if text else ():
    key, equals, value = pair.partition('=')
    if not equals:
      raise Wrong(f'Bad syntax for dict arg: [{pair}]', 2)
    result[key] = value
  return result


def create(world, flags, name, queue):
  zone, project = flags['--zone'], flags['--project']
  shelf = world.queues if queue else world.nodes
  if name in shelf or (queue and flags['--node-id'] in world.nodes):
    raise Wrong(f"ALREADY_EXISTS: Resource '{name}' already exists.")
  accelerator = flags['--accelerator-type']
  workers_of(accelerator)
  labels = pairs(flags.get('--labels'))
  for key, value in labels.items():
    if not re.fullmatch(r'[a-z][a-z0-9_-]{0,62}', key) or not re.fullmatch(
      r'[a-z0-9_-]{0,63}', value
    ):
      raise Wrong(f'argument --labels: Bad value [{key}={value}]', 2)
  metadata = pairs(flags.get('--metadata'))
  for key, file in pairs(flags.get('--metadata-from-file')).items():
    metadata[key] = pathlib.Path(file).read_text()
  if '--valid-until-duration' in flags and not re.fullmatch(
    r'\d+[smhd]', flags['--valid-until-duration']
  ):
    raise Wrong('argument --valid-until-duration: Bad duration', 2)
  where = f'projects/{project}/locations/{zone}'
  now = time.strftime('%Y-%m-%dT%H:%M:%S.123456789Z', time.gmtime())
  node_id = flags['--node-id'] if queue else name
  node = {
    'name': f'{where}/nodes/{node_id}',
    'acceleratorType': accelerator,
    'runtimeVersion': flags['--runtime-version' if queue else '--version'],
    'createTime': now,
    'labels': labels,
    'metadata': metadata,
    'schedulingConfig': {'spot': True} if '--spot' in flags else {},
    'state': 'CREATING',
  }
  if queue:
    node['queuedResource'] = f'{where}/queuedResources/{name}'
    world.queues[name] = {
      'name': f'{where}/queuedResources/{name}',
      'createTime': now,
      'state': {'state': 'WAITING_FOR_RESOURCES'},
      'tpu': {
        'nodeSpec': [
          {'parent': where, 'nodeId': node_id, 'node': {'labels': labels}}
        ]
      },
      'waiting': node,  # the stand-in's own
    }
  else:
    boot(world, node_id, node)


def boot(world, name, node):
  node['state'] = 'READY'
  world.nodes[name] = node
  for worker in range(workers_of(node['acceleratorType'])):
    home = world.home(name, worker)
    (home / 'metadata').mkdir(parents=True)
    values = {**node['metadata'], 'agent-worker-number': str(worker)}
    for key, value in values.items():
      (home / 'metadata' / key).write_text(value)
    if os.environ.get('DST_T5X_GCLOUD_BOOT') and 'startup-script' in values:
      # Booting takes the script from a temporary, which is then removed.
      script = home / 'startup'
      script.write_text(values['startup-script'])
      subprocess.run(['bash', script], env=environment(world, home), check=True)
      script.unlink()


def environment(world, home, **more):
  return {
    'HOME': str(home),
    'PATH': f'{world.folder}/bin:/usr/bin:/bin',
    'WORLD': str(world.folder),
    'DST_T5X_LIFETIME_CHECK': '0.1',
    **more,
  }


def find(world, flags, name, queue):
  found = (world.queues if queue else world.nodes).get(name)
  kind = 'queuedResources' if queue else 'nodes'
  full = (
    f'projects/{flags["--project"]}/locations/{flags["--zone"]}/{kind}/{name}'
  )
  if found is None or found['name'] != full:
    raise Wrong(f"NOT_FOUND: Resource '{full}' was not found")
  return found


def describe(world, flags, name, queue):
  found = find(world, flags, name, queue)
  waiting = found.get('waiting')
  if queue and waiting and found['state']['state'] != 'SUSPENDED':
    # Asked once, it waits; asked twice, it is there.
    if found.pop('asked', False):
      boot(world, name, found.pop('waiting'))
      found['state'] = {'state': 'ACTIVE'}
    else:
      found['asked'] = True
  print(json.dumps({k: v for k, v in found.items() if k != 'waiting'}))


def list_all(world, flags, queue):
  shelf = world.queues if queue else world.nodes
  where = f'projects/{flags["--project"]}/locations/{flags["--zone"]}/'
  print(json.dumps([x for x in shelf.values() if x['name'].startswith(where)]))


def delete(world, flags, name, queue):
  found = find(world, flags, name, queue)
  if '--quiet' not in flags:
    raise Wrong('it asks whether to go on, and there is no terminal')
  if queue:
    owned = [
      key
      for key, node in world.nodes.items()
      if node.get('queuedResource') == found['name']
    ]
    idle = found['state']['state'] in ('FAILED', 'SUSPENDED')
    if owned and not idle and '--force' not in flags:
      raise Wrong('FAILED_PRECONDITION: its nodes are still there')
    for key in owned:
      take_away(world, key)
      del world.nodes[key]
    del world.queues[name]
  else:
    take_away(world, name)
    del world.nodes[name]


def take_away(world, name):
  """Ends what runs on the workers, and deletes their disks."""
  folder = world.folder / 'workers' / name
  for file in folder.glob('*/dst_t5x_run/run/pid'):
    with contextlib.suppress(ProcessLookupError):
      os.killpg(int(file.read_text()), signal.SIGKILL)
  shutil.rmtree(folder, ignore_errors=True)


def preempt(world, name):
  take_away(world, name)
  world.nodes[name]['state'] = 'PREEMPTED'
  if name in world.queues:
    world.queues[name]['state'] = {'state': 'SUSPENDED'}


def chosen(world, flags, name):
  node = find(world, flags, name, False)
  if node['state'] != 'READY':
    raise Wrong(f'the TPU is in state {node["state"]}, and ssh needs READY')
  count = workers_of(node['acceleratorType'])
  worker = flags.get('--worker', '0')
  if worker == 'all':
    return range(count)
  if int(worker) >= count:
    raise Wrong(f'there is no worker {worker}')
  return [int(worker)]


def ssh(world, flags, name):
  workers = chosen(world, flags, name)
  folder = flags.get('--output-directory')
  if folder and not pathlib.Path(folder).is_dir():
    raise Wrong(f'{folder} does not exist')
  if len(workers) > 1 and '--command' not in flags:
    raise Wrong('several workers need --command', 2)
  status = 0
  for worker in workers:
    home = world.home(name, worker)
    rule = world.rule('before', text=flags['--command'], worker=worker)
    more = {'BREAK': rule['break']} if rule else {}
    ended = subprocess.run(
      ['bash', '-c', flags['--command']],
      cwd=home,
      env=environment(world, home, **more),
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      check=False,
    )
    if folder:
      pathlib.Path(folder, f'{worker}.log').write_bytes(ended.stdout)
    else:
      sys.stdout.buffer.write(ended.stdout)
    if ended.returncode:
      status = ended.returncode
      print(
        f'##### Command execution on worker {worker} failed with exit status '
        f'{status}. Continuing.',
        file=sys.stderr,
      )
  if status:
    raise Wrong('a worker failed', status)


def scp(world, flags, source, target):
  if ':' in target:
    name, _, path = target.partition(':')
    for worker in chosen(world, flags, name):
      shutil.copyfile(source, world.home(name, worker) / path)
    return
  name, _, path = source.partition(':')
  (worker,) = chosen(world, flags, name)
  shutil.copyfile(world.home(name, worker) / path, target)


def perform(world, command, flags, rest):
  group, verb = command.split()
  queue = group == 'queued-resources'
  if verb == 'create':
    create(world, flags, rest[0], queue)
  elif verb == 'describe':
    describe(world, flags, rest[0], queue)
  elif verb == 'list':
    list_all(world, flags, queue)
  elif verb == 'delete':
    delete(world, flags, rest[0], queue)
  elif verb == 'ssh':
    ssh(world, flags, rest[0])
  else:
    scp(world, flags, *rest)


def main():
  world = World(os.environ.get('DST_T5X_GCLOUD_WORLD') or os.environ['WORLD'])
  words = sys.argv[1:]
  with (world.folder / 'calls.jsonl').open('a') as file:
    file.write(json.dumps(words) + '\n')
  command = ' '.join(words[2:4])
  try:
    if words[:2] != ['compute', 'tpus'] or command not in FLAGS:
      raise Wrong(f'Invalid choice: {words[:4]}', 2)
    flags, rest = parse(command, words[4:])
    text = ' '.join(words)
    rule = world.rule('before', text=text)
    if rule and rule.get('preempt'):
      preempt(world, rule['preempt'])
    elif rule and rule.get('sleep'):
      time.sleep(rule['sleep'])
    elif rule:
      raise Wrong(rule.get('says', 'INTERNAL: it is on fire'))
    try:
      perform(world, command, flags, rest)
    finally:
      world.save()
    rule = world.rule('after', text=text)
    if rule and rule.get('mute'):
      for file in pathlib.Path(flags['--output-directory']).iterdir():
        file.unlink()
    if rule and rule.get('kill'):
      os.kill(os.getppid(), signal.SIGKILL)
    elif rule:
      raise Wrong(rule.get('says', 'INTERNAL: it is on fire'))
  except Wrong as error:
    dotted = '.'.join(['gcloud', *words[:4]])
    print(f'ERROR: ({dotted}) {error}', file=sys.stderr)
    sys.exit(error.status)


if __name__ == '__main__':
  main()
