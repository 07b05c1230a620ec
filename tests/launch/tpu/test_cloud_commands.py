"""The command lines of the Cloud TPU launcher, token by token.

The expected ones are written out from Google's reference pages; the stand-in
refuses every flag that those do not list.
"""

import json
import shlex
import subprocess

import pytest

from dst_t5x.launch import t5x_main
from dst_t5x.launch.tpu import whole_run
from tests.launch.tpu import cloud_world

SCOPE = 'https://www.googleapis.com/auth/cloud-platform'
MKDIR = 'mkdir -p dst_t5x_run && tar -xf dst_t5x_bundle.tar -C dst_t5x_run'
INSTALL = f'{MKDIR} && bash dst_t5x_run/worker/install.sh cc342d4 HEAD HEAD'
COPY = (
  'mkdir -p dst_t5x_run/recipe && '
  'tar -xf dst_t5x_recipe.tar -C dst_t5x_run/recipe && echo dst_t5x copied'
)
START = (
  'bash dst_t5x_run/worker/start.sh 1 t5x.train '
  '--gin_file=models/byte_tiny.gin '
  """'--gin.MODEL_DIR='"'"'gs://bucket/run'"'"'' """
  '--gin.EPSILON=0.01'
)


@pytest.fixture(name='world')
def _world(tmp_path, monkeypatch):
  monkeypatch.setattr(whole_run, 'deadline', lambda hours: 1900000000)
  made = cloud_world.World(tmp_path, monkeypatch)
  yield made
  made.end()


def _node(verb, *args):
  return ['compute', 'tpus', 'tpu-vm', verb, *args]


def _queue(verb, *args):
  return ['compute', 'tpus', 'queued-resources', verb, *args]


def _ssh(command, worker='all', zone='us-central2-b'):
  return _node(
    'ssh',
    'demo',
    f'--zone={zone}',
    '--project=lab',
    f'--worker={worker}',
    f'--command={command}',
    '--output-directory=demo.tpu/said',
    '--ssh-flag=-oServerAliveInterval=30',
    '--ssh-flag=-oConnectTimeout=30',
    '--quiet',
  )


def _middle(zone):
  """Commands between create and delete, the same for every accelerator."""
  place = [f'--zone={zone}', '--project=lab']
  return [
    _node(
      'scp',
      'demo.tpu/bundle.tar',
      'demo:dst_t5x_bundle.tar',
      '--worker=all',
      *place,
      '--quiet',
    ),
    _ssh(INSTALL, zone=zone),
    _node(
      'scp',
      'demo.tpu/recipe.tar',
      'demo:dst_t5x_recipe.tar',
      '--worker=all',
      *place,
      '--quiet',
    ),
    _ssh(COPY, zone=zone),
    _ssh(START, zone=zone),
    _ssh('bash dst_t5x_run/worker/status.sh 0', zone=zone),
    _ssh(
      'bash dst_t5x_run/worker/export.sh gs://bucket/run '
      'dst_t5x_run/delta.safetensors',
      worker='0',
      zone=zone,
    ),
    _node(
      'scp',
      'demo:dst_t5x_run/delta.safetensors',
      'demo.delta.safetensors',
      '--worker=0',
      *place,
      '--quiet',
    ),
  ]


def _metadata(zone, kind):
  return (
    '--metadata=dst-t5x-expires=1900000000,dst-t5x-name=demo,'
    f'dst-t5x-zone={zone},dst-t5x-project=lab,dst-t5x-kind={kind}'
  )


def _simple(zone, create):
  """The whole run of a TPU that is made at once."""
  place = [f'--zone={zone}', '--project=lab']
  describe = _node('describe', 'demo', *place, '--format=json')
  return [
    create,
    describe,
    *_middle(zone),
    _node('delete', 'demo', *place, '--quiet'),
    describe,
  ]


V4 = _simple(
  'us-central2-b',
  _node(
    'create',
    'demo',
    '--zone=us-central2-b',
    '--project=lab',
    '--accelerator-type=v4-8',
    '--version=tpu-ubuntu2204-base',
    '--labels=dst-t5x-expires=1900000000',
    _metadata('us-central2-b', 'tpu-vm'),
    '--metadata-from-file=startup-script=demo.tpu/lifetime.sh',
    f'--scopes={SCOPE}',
    '--quiet',
  ),
)
V5E = _simple(
  'us-west4-a',
  _node(
    'create',
    'demo',
    '--zone=us-west4-a',
    '--project=lab',
    '--accelerator-type=v5litepod-16',
    '--version=v2-alpha-tpuv5-lite',
    '--spot',
    '--labels=team=nlp,dst-t5x-expires=1900000000',
    _metadata('us-west4-a', 'tpu-vm'),
    '--metadata-from-file=startup-script=demo.tpu/lifetime.sh',
    f'--scopes={SCOPE}',
    '--quiet',
  ),
)
_P = ['--zone=us-east5-a', '--project=lab']
V5P = [
  _queue(
    'create',
    'demo',
    *_P,
    '--accelerator-type=v5p-128',
    '--runtime-version=v2-alpha-tpuv5',
    '--node-id=demo',
    '--valid-until-duration=43200s',
    '--labels=dst-t5x-expires=1900000000',
    _metadata('us-east5-a', 'queued-resources'),
    '--metadata-from-file=startup-script=demo.tpu/lifetime.sh',
    f'--scopes={SCOPE}',
    '--network=mine',
    '--subnetwork=mine-a',
    '--service-account=tpu@lab.iam.gserviceaccount.com',
    '--quiet',
  ),
  _queue('describe', 'demo', *_P, '--format=json'),
  _node('describe', 'demo', *_P, '--format=json'),
  *_middle('us-east5-a'),
  _queue('delete', 'demo', *_P, '--force', '--quiet'),
  _queue('describe', 'demo', *_P, '--format=json'),
  _node('delete', 'demo', *_P, '--quiet'),
  _node('describe', 'demo', *_P, '--format=json'),
]
CASES = {
  'v4-8': (['--accelerator=v4-8', '--zone=us-central2-b'], V4),
  'v5e-16': (
    [
      '--accelerator=v5e-16',
      '--zone=us-west4-a',
      '--provisioning=spot',
      '--labels=team=nlp',
    ],
    V5E,
  ),
  'v5p-128': (
    [
      '--accelerator=v5p-128',
      '--zone=us-east5-a',
      '--provisioning=queued',
      '--max-hours=12',
      '--network=mine',
      '--subnetwork=mine-a',
      '--service-account=tpu@lab.iam.gserviceaccount.com',
    ],
    V5P,
  ),
}


def _up(world, options, *words):
  package = f'--package={world.checkout}'
  return world.run(
    'up',
    'demo',
    'train',
    *options,
    '--project=lab',
    package,
    '--poll=0.05',
    *words,
    '--',
    *cloud_world.FLAGS,
  )


@pytest.mark.parametrize('case', CASES)
def test_dry_run_prints_every_command_and_calls_none(world, case):
  options, expected = CASES[case]
  result = _up(world, options, '--dry-run')
  assert result.exit_code == 0, result.output
  lines = result.stdout.splitlines()
  first = lines.index('# create')
  printed = [
    shlex.split(line) for line in lines[first:] if not line.startswith('#')
  ]
  assert [each[0] for each in printed] == [str(world.gcloud)] * len(expected)
  assert [each[1:] for each in printed] == expected
  assert lines[first:].count('# create') == 1
  assert world.calls() == []
  assert world.things == set()
  assert list(world.here.iterdir()) == []


@pytest.mark.parametrize(
  ('case', 'hosts'), [('v4-8', '1'), ('v5e-16', '4'), ('v5p-128', '16')]
)
def test_dry_run_begins_with_a_plan(world, case, hosts):
  lines = _up(world, CASES[case][0], '--dry-run').stdout.splitlines()
  plan = dict(line.split('  ', 1) for line in lines[: lines.index('# create')])
  assert plan['hosts'].split()[0] == hosts
  for name in ('accelerator', 'topology', 'mesh', 'batch a device', 'fits'):
    assert plan[name].strip()


# v5p-128 runs everything on 16 workers, one after another.
@pytest.mark.parametrize('case', CASES)
def test_commands_of_a_whole_run(world, case):
  options, expected = CASES[case]
  (world.folder / 'delta.safetensors').write_bytes(
    (cloud_world.GOLDEN / 'many_v1.0.safetensors').read_bytes()
  )
  result = _up(world, options)
  assert result.exit_code == 0, result.output
  # Each question for the state may be asked several times, and the log is
  # asked for at other offsets; and the queue took its TPU with it.
  calls = [each for each in world.calls() if each[3] != 'describe']
  calls = [each for each in calls if 'status.sh' not in ' '.join(each)]
  wanted = [each for each in expected if each[3] != 'describe']
  wanted = [each for each in wanted if 'status.sh' not in ' '.join(each)]
  if case == 'v5p-128':
    wanted.remove(_node('delete', 'demo', *_P, '--quiet'))
  assert calls == wanted
  asked = [each for each in world.calls() if each[3] == 'describe']
  assert {tuple(each) for each in asked} == {
    tuple(each) for each in expected if each[3] == 'describe'
  }
  assert world.things == set()
  assert world.state is None
  assert not (world.here / 'demo.tpu').exists()
  fetched = world.here / 'demo.delta.safetensors'
  golden = cloud_world.GOLDEN / 'many_v1.0.safetensors'
  assert fetched.read_bytes() == golden.read_bytes()


def test_internal_addresses_reach_every_command(world):
  result = world.up('--internal-ips', '--dry-run')
  lines = result.stdout.splitlines()
  lines = [shlex.split(line) for line in lines if 'tpu-vm' in line]
  for line in lines:
    verb = line[4]
    assert ('--internal-ips' in line) == (verb == 'create')
    assert ('--internal-ip' in line) == (verb in ('ssh', 'scp'))


def test_workers_get_the_flags_as_they_were_typed(world):
  (world.here / 'my recipes').mkdir()
  recipe = world.here / 'my recipes' / 'mine.gin'
  recipe.write_text('EVAL_PERIOD = 7\n')
  flags = (
    *cloud_world.FLAGS,
    '--gin_file=my recipes/mine.gin',
    '--gin.NOTE="it\'s $HOME; `id` & é"',
  )
  result = world.up('--keep', flags=flags)
  assert result.exit_code == 0, result.output
  home = world.home(0)
  recipe_there = home / 'dst_t5x_run' / 'recipe' / 'my recipes' / 'mine.gin'
  assert recipe_there.read_bytes() == recipe.read_bytes()
  words = (home / 'main.args').read_text().splitlines()
  assert words == [
    '-m',
    'dst_t5x.launch.t5x_main',
    '--auto',
    't5x.train',
    f'--gin_search_paths={home}/dst_t5x_run/recipe,/gin',
    *flags,
  ]
  # And so the module reads them.
  with t5x_main.main.make_context('t5x_main', words[2:]) as context:
    read = context.params
  assert read['auto'] is True
  assert read['module'] == 't5x.train'
  assert read['flags'] == tuple(words[4:])
  there = (home / 'main.pwd').read_text().strip()
  assert there == str(home / 'dst_t5x_run' / 'recipe')


def test_workers_install_pinned_versions(world):
  result = world.up('--keep', '--t5x-commit=abcdef1')
  assert result.exit_code == 0, result.output
  root = world.home(0) / 'dst_t5x_run'
  log = (world.home(0) / 'python.log').read_text().splitlines()
  assert log == [
    '-m pip install --quiet --user uv==0.13.8',
    f'-m uv venv --quiet --python 3.11 {root}/venv',
    f'-m uv pip install --quiet --python {root}/venv/bin/python '
    '--reinstall-package dst_t5x '
    f'--constraints {root}/package/constraints.txt '
    f'dst_t5x[t5x,tpu] @ file://{root}/package/checkout',
  ]
  pins = root / 'package' / 'constraints.txt'
  assert pins.read_text() == 'jax==0.10.2\n'
  assert (root / 't5x' / '.git' / 'commit').read_text() == 'abcdef1\n'


def test_state_file_has_no_credentials_and_all_that_is_needed(world):
  assert world.up('--keep').exit_code == 0
  fields = (
    'version name zone project accelerator provisioning max_hours expires '
    'labels options package commits main flags files finish attempt done'
  )
  assert set(world.state) == set(fields.split())
  assert world.state['done'] == ['create', 'install', 'copy', 'run', 'follow']


WRONG = {
  'accelerator': (['--accelerator=v9-8'], 'v9'),
  'zone': (['--zone=mars'], 'us-central2-b'),
  'provisioning': (['--provisioning=cheap'], 'on-demand'),
  'lifetime': (['--max-hours=inf'], 'finite'),
  'no lifetime': (['--max-hours=nan'], 'finite'),
  'label': (['--labels=Team=nlp'], 'lower-case'),
  'our label': (['--labels=dst-t5x-expires=1'], '--max-hours'),
  'package': (['--package=nowhere'], 'nowhere'),
  'file': (['--file=../secret'], 'working directory'),
  'file that is not there': (['--file=none.txt'], 'none.txt'),
}


@pytest.mark.parametrize('case', WRONG)
def test_wrong_options_are_refused_before_any_call(world, case):
  words, named = WRONG[case]
  result = world.up(*words)
  assert result.exit_code == 2, result.output
  assert named in result.output
  assert world.calls() == []
  assert world.state is None


WRONG_FLAGS = {
  'local model dir': (
    ["--gin.MODEL_DIR='/tmp/run'"],
    '--allow-local-model-dir',
  ),
  'no model dir': ([], 'gs://BUCKET/FOLDER'),
  'file elsewhere': (
    ["--gin.MODEL_DIR='gs://b/r'", '--gin_file={there}/a.gin'],
    'working directory',
  ),
  'folder of this machine': (
    ["--gin.MODEL_DIR='gs://b/r'", '--gin_search_paths={there}'],
    '{there}',
  ),
  'file that is not there': (
    ["--gin.MODEL_DIR='gs://b/r'", '--gin_file=modles/byte.gin'],
    'modles/byte.gin',
  ),
}


@pytest.mark.parametrize('case', WRONG_FLAGS)
def test_wrong_flags_are_refused_before_any_call(world, case, tmp_path):
  flags, named = WRONG_FLAGS[case]
  (tmp_path / 'a.gin').write_text('X = 1\n')
  flags = [flag.format(there=tmp_path) for flag in flags]
  result = world.up(flags=('--gin_file=models/byte_tiny.gin', *flags))
  assert result.exit_code == 2, result.output
  assert named.format(there=tmp_path) in result.output
  assert world.calls() == []
  assert world.state is None


def test_a_run_that_does_not_fit_is_refused(world):
  flags = (
    '--gin_file=models/t5_1_1_xxl.gin',
    "--gin.MODEL_DIR='gs://bucket/run'",
    '--gin.EPSILON=0.01',
  )
  result = world.up(flags=flags)
  assert result.exit_code == 2
  assert 'does not fit on v4-8' in result.output
  assert world.calls() == []
  plan = world.run('plan', '--accelerator=v4-8', '--json', '--', *flags)
  assert json.loads(plan.stdout)['fits_without_activations'] is False


REFUSED = {
  'flag of the alpha version': (
    'tpu-vm ssh demo --batch-size=4',
    '--batch-size',
  ),
  'flag of another command': ('tpu-vm create demo --node-id=x', '--node-id'),
  'lacking flag': ('tpu-vm create demo --accelerator-type=v4-8', '--version'),
  'lacking node': (
    'queued-resources create demo --runtime-version=x --accelerator-type=v4-8',
    '--node-id',
  ),
  'our own name of a type': (
    'tpu-vm create demo --version=x --accelerator-type=v5e-16',
    '--accelerator-type',
  ),
  'flag that takes no value': (
    'queued-resources delete demo --force=yes',
    '--force',
  ),
  'no name': ('tpu-vm describe', 'positional'),
  'two names': ('tpu-vm delete a b', 'positional'),
  'unknown command': ('tpu-vm restart demo', 'Invalid choice'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_stand_in_refuses(world, case):
  words, named = REFUSED[case]
  ended = subprocess.run(
    [world.gcloud, 'compute', 'tpus', *words.split(), *cloud_world.PLACE],
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == 2
  assert named in ended.stderr
  assert world.things == set()


def test_missing_gcloud_is_a_sentence(world, monkeypatch):
  monkeypatch.setenv('DST_T5X_GCLOUD', 'no-such-gcloud')
  result = world.up()
  assert result.exit_code == 2
  assert 'https://cloud.google.com/sdk/docs/install' in result.output
  assert world.state is None


def test_included_files_count_and_are_copied(world):
  (world.here / 'shared').mkdir()
  included = world.here / 'shared' / 'bucket.gin'
  included.write_text("MODEL_DIR = 'gs://bucket/run'\n")
  recipe = world.here / 'mine.gin'
  recipe.write_text("include 'shared/bucket.gin'\nEVAL_PERIOD = 7\n")
  flags = (
    '--gin_file=models/byte_tiny.gin',
    '--gin_file=mine.gin',
    '--gin.EPSILON=0.01',
  )
  result = world.up('--keep', flags=flags)
  assert result.exit_code == 0, result.output
  there = world.home(0) / 'dst_t5x_run' / 'recipe'
  assert (there / 'mine.gin').read_bytes() == recipe.read_bytes()
  assert (there / 'shared/bucket.gin').read_bytes() == included.read_bytes()
  # What is exported lies where the included file says.
  fetch = world.run('fetch', 'demo', '--dry-run').stdout
  assert 'export.sh gs://bucket/run' in fetch
