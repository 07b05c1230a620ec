"""What the Cloud TPU launcher says and leaves when a step fails.

After every failure two things are checked from outside, in the stand-in's
world: whatever exists is named in what was printed, and the commands to go on
and to delete are there; and those commands work.
"""

import json
import os
import re
import signal
import subprocess
import time

import pytest

from dst_t5x.launch.tpu import main_status, step_table, whole_run
from tests import children
from tests.launch.tpu import cloud_world

KINDS = {'nodes': 'TPU', 'queues': 'Queued resource'}
COMMAND = 'dst-t5x launch tpu'


@pytest.fixture(name='world')
def _world(tmp_path, monkeypatch):
  made = cloud_world.World(tmp_path, monkeypatch)
  golden = cloud_world.GOLDEN / 'many_v1.0.safetensors'
  (made.folder / 'delta.safetensors').write_bytes(golden.read_bytes())
  yield made
  made.end()


def _accounted(world, output, go_on='resume'):
  """Checks that a message names all there is, and what to do."""
  for kind, name in world.things:
    assert f'{KINDS[kind]} {name!r} exists in us-central2-b' in output
  if not world.things:
    assert 'Nothing of this run is billed.' in output
  assert f'Go on:  {COMMAND} {go_on} demo' in output
  assert f'Delete: {COMMAND} delete demo' in output
  assert world.state is not None


def _gone(world, result):
  assert result.exit_code == 0, result.output
  assert world.things == set()
  assert world.state is None


def _starts(world, worker=0):
  """How often the main was started on a worker."""
  log = (world.home(worker) / 'venv_python.log').read_text()
  return log.count('dst_t5x.launch.t5x_main')


def test_create_fails(world):
  world.rules({'what': 'tpu-vm create', 'says': 'no more capacity'})
  result = world.up()
  assert result.exit_code == 1
  assert 'no more capacity' in result.output
  assert 'tpu-vm create demo' in result.output
  assert world.things == set()
  _accounted(world, result.output)
  _gone(world, world.run('resume', 'demo', '--poll=0.05'))


def test_create_fails_but_the_tpu_is_there(world):
  world.rules({'what': 'tpu-vm create', 'when': 'after', 'says': 'timeout'})
  result = world.up()
  assert result.exit_code == 1
  assert world.things == {('nodes', 'demo')}
  _accounted(world, result.output)
  # It is taken as it is, and not made a second time.
  _gone(world, world.run('resume', 'demo', '--poll=0.05'))
  assert len(world.calls('create')) == 1


@pytest.mark.parametrize('go_on', ['resume', 'install', 'delete'])
def test_install_fails_on_one_worker(world, go_on):
  world.rules({'what': 'install.sh', 'worker': 1, 'break': 'pip'})
  result = world.up(accelerator='v4-16')
  assert result.exit_code == 1
  assert 'worker 1 of 2 failed' in result.output
  assert 'error: No space left on device' in result.output
  assert 'worker 0 said' not in result.output
  assert world.things == {('nodes', 'demo')}
  _accounted(world, result.output)
  result = world.run(go_on, 'demo')
  assert result.exit_code == 0, result.output
  if go_on == 'install':
    assert world.state['done'] == ['create', 'install']
  else:
    _gone(world, result)


def test_workers_with_different_versions_are_refused(world):
  assert world.up('--keep', accelerator='v4-16').exit_code == 0
  (world.home(1) / 'dst_t5x_run/airio/.git/commit').write_text('1234567\n')
  result = world.run('install', 'demo')
  assert result.exit_code == 1
  assert 'worker 1 has' in result.output
  assert '--airio-commit' in result.output
  _accounted(world, result.output, 'install')


@pytest.mark.parametrize(
  ('what', 'done'),
  [
    ('bundle.tar', ['create']),
    ('scp demo.tpu/recipe.tar', ['create', 'install']),
    ('recipe && tar', ['create', 'install']),
    ('start.sh', ['create', 'install', 'copy']),
  ],
)
def test_a_step_fails(world, what, done):
  world.rules({'what': what, 'says': 'the network is down'})
  result = world.up()
  assert result.exit_code == 1
  assert 'the network is down' in result.output
  assert what in result.output
  assert world.state['done'] == done
  assert world.things == {('nodes', 'demo')}
  _accounted(world, result.output)
  _gone(world, world.run('resume', 'demo', '--poll=0.05'))


def test_main_fails_on_one_worker(world):
  world.main(
    'echo $$ >"$HOME/main.pid"\n'
    'if [[ $worker == 1 ]]; then\n'
    '  sleep 0.2; echo "RuntimeError: bad chip"; exit 3\n'
    'fi\n'
    'echo step 1; sleep 100'
  )
  result = world.up(accelerator='v4-16')
  assert result.exit_code == 1
  assert 't5x.train failed on worker 1 of 2' in result.output
  assert 'exit status 3' in result.output
  assert 'RuntimeError: bad chip' in result.output
  assert 'stopped on worker 0.' in result.output
  for worker in range(2):
    pid = int((world.home(worker) / 'main.pid').read_text())
    with pytest.raises(ProcessLookupError):
      os.kill(pid, 0)
  assert world.things == {('nodes', 'demo')}
  _accounted(world, result.output)
  world.main('echo step 2')
  _gone(world, world.run('resume', 'demo', '--poll=0.05'))


def test_traceback_of_worker_0_is_in_the_message(world):
  world.main('echo step 1; echo "ValueError: bad seed"; exit 1')
  result = world.up()
  assert result.exit_code == 1
  assert result.stdout.count('ValueError: bad seed') == 1
  assert 'ValueError: bad seed' in result.stderr
  _accounted(world, result.output)


def test_main_that_vanishes_is_noticed_and_started_again(world):
  world.main('echo $$ >"$HOME/main.pid"; kill -KILL 0')
  result = world.up()
  assert result.exit_code == 1
  assert 'gone without an exit status' in result.output
  _accounted(world, result.output)
  world.main('echo done')
  _gone(world, world.run('resume', 'demo', '--poll=0.05'))


@pytest.mark.parametrize('provisioning', ['spot', 'queued-spot'])
def test_preempted_and_resumed(world, provisioning):
  world.main('echo step 1; sleep 100')
  world.rules({'what': 'status.sh', 'skip': 2, 'preempt': 'demo'})
  result = world.up(f'--provisioning={provisioning}')
  assert result.exit_code == 75
  assert 'PREEMPTED' in result.output
  assert ('nodes', 'demo') in world.things
  _accounted(world, result.output)
  before = world.state
  calls = len(world.calls())
  dry = world.run('resume', 'demo', '--dry-run').stdout.splitlines()
  assert dry[0] == '# delete'
  assert [line for line in dry if 'start.sh 2 t5x.train' in line]
  assert len(world.calls()) == calls
  world.main('echo goes on')
  resumed = world.run('resume', 'demo', '--poll=0.05')
  assert 'goes on' in resumed.stdout
  _gone(world, resumed)
  creates = world.calls('create')
  assert len(creates) == 2
  flags = [each for each in world.calls('ssh') if 'start.sh' in ' '.join(each)]
  first, second = (' '.join(each) for each in flags)
  assert second == first.replace('start.sh 1 ', 'start.sh 2 ')
  assert before['flags'] == list(cloud_world.FLAGS)


def test_preempted_while_installing(world):
  world.rules({'what': 'install.sh', 'preempt': 'demo'})
  result = world.up('--provisioning=spot')
  assert result.exit_code == 75
  _accounted(world, result.output)
  _gone(world, world.run('resume', 'demo', '--poll=0.05'))


def test_goes_on_by_itself_as_often_as_allowed(world):
  world.rules(
    {'what': 'status.sh', 'preempt': 'demo'},
    {'what': 'status.sh', 'preempt': 'demo'},
  )
  result = world.up('--provisioning=spot', '--max-preemptions=2')
  _gone(world, result)
  assert len(world.calls('create')) == 3
  # All TPUs share one lifetime.
  creates = world.calls('create')
  assert all(
    any(word.startswith('--labels=dst-t5x-expires=') for word in each)
    for each in creates
  )
  assert creates == [creates[0]] * 3


def test_does_not_go_on_more_often_than_allowed(world):
  world.rules(
    {'what': 'status.sh', 'preempt': 'demo'},
    {'what': 'status.sh', 'preempt': 'demo'},
  )
  result = world.up('--provisioning=spot', '--max-preemptions=1')
  assert result.exit_code == 75
  assert len(world.calls('create')) == 2
  _accounted(world, result.output)


def test_does_not_go_on_past_the_lifetime(world):
  world.rules({'what': 'status.sh', 'preempt': 'demo'})
  result = world.up(
    '--provisioning=spot', '--max-preemptions=1', '--max-hours=0.1'
  )
  assert result.exit_code == 75
  assert 'lifetime' in result.output
  assert len(world.calls('create')) == 1
  _accounted(world, result.output)


def test_a_broken_connection_is_no_failure(world):
  world.main('echo step 1; sleep 1; echo step 2')
  world.rules({'what': 'status.sh', 'skip': 1, 'says': 'connection reset'})
  result = world.up()
  _gone(world, result)
  assert 'asking again' in result.stderr
  assert result.stdout.count('step 1') == 1
  assert result.stdout.count('step 2') == 1


def test_a_start_that_arrives_twice_starts_one_main(world):
  world.main('echo step 1; sleep 0.5')
  assert world.up('--keep').exit_code == 0
  (start,) = (
    each for each in world.calls('ssh') if 'start.sh' in ' '.join(each)
  )
  environment = {**os.environ, 'DST_T5X_GCLOUD_WORLD': str(world.folder)}
  again = subprocess.run(
    [world.gcloud, *start],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert again.returncode == 0, again.stderr
  said = (world.here / 'demo.tpu' / 'said' / '0.log').read_text()
  assert 'worker 0 started already' in said
  assert _starts(world) == 1


def test_a_start_that_was_not_heard_of_is_found(world):
  world.main('echo step 1; sleep 2')
  world.rules({'what': 'start.sh', 'when': 'after', 'mute': True})
  result = world.up('--keep')
  assert result.exit_code == 1
  assert world.state['done'] == ['create', 'install', 'copy']
  _accounted(world, result.output)
  resumed = world.run('resume', 'demo', '--poll=0.05')
  assert resumed.exit_code == 0, resumed.output
  assert 'step 1' in resumed.stdout
  assert _starts(world) == 1


def test_a_second_run_is_not_started_over_the_first(world, monkeypatch):
  monkeypatch.setattr(main_status, 'PATIENCE', 2)
  world.main('echo step 1; sleep 100')
  world.rules({'what': 'status.sh', 'says': 'x', 'times': 2})
  assert world.up('--keep', '--max-hours=1').exit_code == 1
  result = world.run('run', 'demo', 'train', '--', *cloud_world.FLAGS)
  assert result.exit_code == 1
  assert 'still runs attempt 1' in result.output
  assert _starts(world) == 1


@pytest.mark.parametrize('what', ['export.sh', 'scp demo:dst_t5x_run/delta'])
def test_fetch_fails(world, what):
  world.rules({'what': what, 'says': 'no such bucket'})
  result = world.up()
  assert result.exit_code == 1
  assert 'no such bucket' in result.output
  # The delta is on the TPU's side only, so that the TPU stays.
  assert world.things == {('nodes', 'demo')}
  _accounted(world, result.output)
  assert world.run('fetch', 'demo').exit_code == 0
  assert (world.here / 'demo.delta.safetensors').is_file()
  _gone(world, world.run('delete', 'demo'))


def test_a_damaged_delta_keeps_the_tpu(world):
  file = world.folder / 'delta.safetensors'
  file.write_bytes(file.read_bytes()[:-10])
  result = world.up()
  assert result.exit_code == 1
  assert 'demo.delta.safetensors' in result.output
  assert world.things == {('nodes', 'demo')}
  _accounted(world, result.output)


@pytest.mark.parametrize('provisioning', ['on-demand', 'queued'])
def test_delete_fails(world, provisioning):
  world.rules({'what': ' delete demo', 'says': 'permission denied'})
  result = world.up(f'--provisioning={provisioning}')
  assert result.exit_code == 1
  assert 'permission denied' in result.output
  assert ('nodes', 'demo') in world.things
  _accounted(world, result.output)
  assert (world.here / 'demo.delta.safetensors').is_file()
  _gone(world, world.run('delete', 'demo', '--poll=0.01'))


def test_delete_that_does_nothing_is_noticed(world, monkeypatch):
  assert world.up('--keep').exit_code == 0
  deaf = world.folder / 'deaf'
  deaf.write_text(
    f'#!/usr/bin/env bash\n[[ $4 == delete ]] || exec {world.gcloud} "$@"\n'
  )
  deaf.chmod(0o755)
  monkeypatch.setenv('DST_T5X_GCLOUD', str(deaf))
  result = world.run('delete', 'demo', '--poll=0.01')
  assert result.exit_code == 1
  _accounted(world, result.output, 'delete')


def test_describe_fails_after_another_failure(world):
  world.rules(
    {'what': 'install.sh', 'says': 'first trouble'},
    {'what': 'describe', 'skip': 3, 'times': 9, 'says': 'second trouble'},
  )
  result = world.up()
  assert result.exit_code == 1
  assert 'first trouble' in result.output
  assert "Whether TPU 'demo' exists in us-central2-b cannot be told" in (
    result.output
  )
  assert 'Take it that it is billed' in result.output
  assert 'tpu-vm describe demo --zone=us-central2-b --project=lab' in (
    result.output
  )
  assert 'Nothing of this run is billed' not in result.output
  assert f'{COMMAND} delete demo' in result.output
  assert world.state is not None


def test_gone_is_believed_only_if_the_cloud_says_so(world):
  assert world.up('--keep').exit_code == 0
  world.rules(
    {'what': 'describe', 'skip': 1, 'times': 9, 'says': 'UNAVAILABLE: later'}
  )
  result = world.run('delete', 'demo', '--poll=0.01')
  assert result.exit_code == 1
  assert 'cannot be told' in result.output
  assert world.state is not None
  world.rules()
  _gone(world, world.run('delete', 'demo'))


def test_nothing_is_made_if_the_cloud_does_not_answer(world):
  world.rules({'what': 'describe', 'says': 'you are not logged in'})
  result = world.up()
  assert result.exit_code == 2
  assert 'you are not logged in' in result.output
  assert world.calls('create') == []
  assert world.state is None


def test_the_queue_gives_up(world):
  world.rules({'what': 'queued-resources create', 'when': 'after'})
  assert world.up('--provisioning=queued').exit_code == 1
  world.change('queues', 'demo', state={'state': 'SUSPENDED'})
  result = world.run('status', 'demo')
  assert 'SUSPENDED' in result.output
  _gone(world, world.run('delete', 'demo'))


def _launch(world, *words):
  """Starts the launcher as a process of its own."""
  return subprocess.Popen(
    children.python(
      '-m',
      'dst_t5x.launch.tpu',
      'up',
      'demo',
      'train',
      '--accelerator=v4-8',
      *cloud_world.PLACE,
      f'--package={world.checkout}',
      '--poll=0.05',
      *words,
      '--',
      *cloud_world.FLAGS,
    ),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=world.here,
  )


@pytest.mark.parametrize('when', ['before', 'after'])
def test_launcher_killed_around_create(world, when):
  # A rule that sleeps lets the launcher be killed before the TPU is made.
  if when == 'before':
    world.rules({'what': 'tpu-vm create', 'sleep': 2})
  else:
    world.rules({'what': 'tpu-vm create', 'when': 'after', 'kill': True})
  process = _launch(world)
  if when == 'before':
    deadline = time.time() + 20
    while not world.calls('create') and time.time() < deadline:
      time.sleep(0.05)
    process.kill()
    # What it asked for goes on without it.
    while not world.things and time.time() < deadline:
      time.sleep(0.05)
  process.communicate(timeout=30)
  assert process.returncode == -signal.SIGKILL
  assert world.things == {('nodes', 'demo')}
  assert world.state['done'] == []
  result = world.run('status', 'demo')
  assert result.exit_code == 0
  assert "TPU 'demo' exists in us-central2-b" in result.output
  _gone(world, world.run('delete', 'demo'))


def test_interrupted(world):
  world.main('echo step 1; sleep 100')
  process = _launch(world)
  assert process.stdout is not None
  seen = process.stdout.readline()
  while seen and 'step 1' not in seen:
    seen = process.stdout.readline()
  process.send_signal(signal.SIGINT)
  _, errors = process.communicate(timeout=30)
  assert process.returncode == 130
  assert 'interrupted' in errors
  _accounted(world, errors)
  # The main goes on, and is found again.
  world.main('echo never')
  assert _starts(world) == 1
  pid = int((world.home(0) / 'dst_t5x_run/run/pid').read_text())
  os.kill(pid, 0)
  status = json.loads(world.run('status', 'demo', '--json').stdout)
  assert status['workers'] == {'0': 'running'}
  assert status['resources'][0]['state'] == 'READY'


def _hours(monkeypatch, hours):
  monkeypatch.setattr(
    whole_run, 'deadline', lambda _: int(time.time() + hours * 3600)
  )


def test_sweep_deletes_what_is_overdue_and_nothing_else(world, monkeypatch):
  def create(name, *words):
    result = world.run(
      'create',
      name,
      '--accelerator=v4-8',
      *cloud_world.PLACE,
      f'--package={world.checkout}',
      '--poll=0.01',
      *words,
    )
    assert result.exit_code == 0, result.output

  create('young')
  monkeypatch.setattr(step_table, 'check_coming', lambda *_: None)
  _hours(monkeypatch, -3)
  create('old')
  create('old-queued', '--provisioning=queued')
  create('foreign')
  world.change('nodes', 'foreign', labels={'team': 'nlp'})
  for file in world.here.glob('*.tpu.json'):
    file.unlink()  # as on another machine

  where = ['--zone=us-central2-b', '--project=lab']
  listed = world.run('list', *where).output.splitlines()
  names = {line.split()[0] for line in listed[1:]}
  assert names == {'young', 'old', 'old-queued'}
  (young,) = (line for line in listed if line.startswith('young'))
  assert '24.0 h left' in young
  overdue = [line for line in listed if 'overdue by 3.0 h' in line]
  assert len(overdue) == 3  # the queued resource, and two TPUs

  dry = world.run('delete', '--expired', *where, '--dry-run')
  assert 'delete old ' in dry.output
  assert 'delete young ' not in dry.output
  assert len(world.things) == 5
  result = world.run('delete', '--expired', *where, '--poll=0.01')
  assert result.exit_code == 0, result.output
  assert world.things == {('nodes', 'young'), ('nodes', 'foreign')}
  again = world.run('delete', '--expired', *where)
  assert 'nothing is overdue' in again.output


def test_sweep_goes_on_after_a_failure(world, monkeypatch):
  _hours(monkeypatch, -3)
  for name in ('one', 'two'):
    world.run(
      'create',
      name,
      '--accelerator=v4-8',
      *cloud_world.PLACE,
      f'--package={world.checkout}',
    )
  world.rules({'what': 'delete one', 'says': 'permission denied'})
  result = world.run('delete', '--expired', '--poll=0.01')
  assert result.exit_code == 1
  assert "TPU 'one' exists in us-central2-b" in result.output
  assert f'{COMMAND} delete one' in result.output
  assert world.things == {('nodes', 'one')}


def test_somebody_elses_tpu_is_left_alone(world):
  assert world.up('--keep').exit_code == 0
  (world.here / 'demo.tpu.json').unlink()
  taken = world.up()
  assert taken.exit_code == 2
  assert 'the name is taken' in taken.output
  assert world.state is None

  world.change('nodes', 'demo', labels={})
  words = ['delete', 'demo', *cloud_world.PLACE, '--poll=0.01']
  refused = world.run(*words)
  assert refused.exit_code == 1
  assert '--force' in refused.output
  assert world.things == {('nodes', 'demo')}
  assert world.run(*words, '--force').exit_code == 0
  assert world.things == set()


def test_a_name_in_use_here_is_refused(world):
  assert world.up('--keep').exit_code == 0
  result = world.up()
  assert result.exit_code == 2
  assert 'demo.tpu.json' in result.output
  assert 'resume demo' in result.output


@pytest.mark.parametrize('provisioning', ['on-demand', 'queued'])
def test_the_tpu_ends_its_own_life(world, monkeypatch, provisioning):
  monkeypatch.setenv('DST_T5X_GCLOUD_BOOT', '1')
  monkeypatch.setattr(whole_run, 'deadline', lambda hours: int(time.time()) + 3)
  result = world.run(
    'create',
    'demo',
    '--accelerator=v4-8',
    f'--provisioning={provisioning}',
    *cloud_world.PLACE,
    f'--package={world.checkout}',
    '--poll=0.01',
  )
  assert result.exit_code == 0, result.output
  assert ('nodes', 'demo') in world.things
  deadline = time.time() + 20
  while world.things and time.time() < deadline:
    time.sleep(0.1)
  assert world.things == set()
  last = world.calls('delete')[-1]
  kind = 'queued-resources' if provisioning == 'queued' else 'tpu-vm'
  assert last[2:5] == [kind, 'delete', 'demo']
  assert ('--force' in last) == (provisioning == 'queued')


def test_unknown_run_names_those_that_there_are(world):
  assert world.up('--keep').exit_code == 0
  result = world.run('status', 'dmeo')
  assert result.exit_code == 2
  assert 'there are demo' in result.output


@pytest.mark.parametrize('content', ['', '[]', '{"version": 9}', '{"a": 1}'])
def test_damaged_state_file(world, content):
  (world.here / 'demo.tpu.json').write_text(content)
  result = world.run('delete', 'demo')
  assert result.exit_code == 2
  assert 'demo.tpu.json cannot be read' in result.output


def test_every_command_has_help(world):
  listed = re.findall(r'^  (\w+)  ', world.run('--help').output, re.M)
  assert set(listed) == set(
    'plan create install copy run follow status resume fetch delete list '
    'up'.split()
  )
  for name in listed:
    assert world.run(name, '--help').exit_code == 0
