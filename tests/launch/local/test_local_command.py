"""Several processes as one: started, shown, watched and stopped together."""

import itertools
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import time

import pytest
from click import testing

from dst_t5x.commands import cli
from dst_t5x.launch import t5x_main
from dst_t5x.launch.local import process_lines, processes
from dst_t5x.recipes import gin_path
from tests import children

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
# Each writes its process id to a file, which others wait for.
BEGIN = """
import os, pathlib, signal, subprocess, sys, time
me = pathlib.Path(sys.argv[1])
def ready(name):
  temporary = me.with_name(me.name + name + '.part')
  temporary.write_text(str(os.getpid()))
  temporary.rename(me.with_name(me.name + name))
def wait_for(*names):
  while not all(me.with_name(name).exists() for name in names):
    time.sleep(0.01)
ready('')
"""
SLEEP = "ready('.sleeps'); time.sleep(600)"
# A launcher that can be sent signals: the watcher, in a program of its own.
LAUNCHER = """
import pathlib, sys
from dst_t5x.launch.local import processes
folder = pathlib.Path(sys.argv[1])
environment = {}
jobs = [
  processes.Job([sys.executable, '-c', code, str(folder / str(index))],
                environment, folder / f'{index}.log')
  for index, code in enumerate(sys.argv[2:])
]
outcome = processes.run(jobs, show=print, grace=0.2)
print(outcome, flush=True)
sys.exit(outcome.code)
"""
LIMIT = 60  # seconds that no test comes near, unless it fails


def jobs_of(folder, *programs):
  """The programs, in `folder`; the n-th writes its process id to file n."""
  return [
    processes.Job(
      [sys.executable, '-c', BEGIN + code, str(folder / str(index))],
      os.environ,
      folder / f'{index}.log',
    )
    for index, code in enumerate(programs)
  ]


def run(folder, *programs, **options):
  """Runs the programs; returns the outcome and what was shown."""
  shown = []
  jobs = jobs_of(folder, *programs)
  outcome = processes.run(
    jobs, show=shown.append, **{'grace': 0.2, 'limit': LIMIT, **options}
  )
  return outcome, shown


def pid(path):
  return int(wait_for(path).read_text())


def wait_for(path):
  end = time.monotonic() + LIMIT
  while not path.exists():
    assert time.monotonic() < end, f'{path.name} was never written'
    time.sleep(0.01)
  return path


def is_gone(number):
  """Whether a process has ended, or does so soon: someone must reap it."""
  end = time.monotonic() + LIMIT
  while time.monotonic() < end:
    try:
      os.kill(number, 0)
    except ProcessLookupError:
      return True
    # An orphan stays a zombie where nothing reaps them.
    stat = pathlib.Path(f'/proc/{number}/stat')
    if stat.exists() and stat.read_text().rpartition(')')[2].split()[0] == 'Z':
      return True
    time.sleep(0.02)
  return False


def test_all_end_well(tmp_path):
  outcome, shown = run(
    tmp_path, "print('one'); print('two', end='\\n\\nthree')", "print('other')"
  )
  assert outcome == processes.Outcome(0)
  assert shown == ['one', 'two', '']
  assert (tmp_path / '0.log').read_text() == 'one\ntwo\n\nthree'
  assert (tmp_path / '1.log').read_text() == 'other\n'


def test_lines_are_shown_while_it_runs(tmp_path):
  jobs = jobs_of(tmp_path, "print('go', flush=True); wait_for('seen')")

  def show(line):
    assert line == 'go'
    (tmp_path / 'seen').touch()

  assert processes.run(jobs, show=show, limit=LIMIT).code == 0
  assert (tmp_path / 'seen').exists()


@pytest.mark.parametrize(
  ('end', 'code'),
  [
    ("raise ValueError('the cause')", 1),
    ('sys.exit(7)', 7),
    ('os.kill(os.getpid(), signal.SIGKILL)', 137),
  ],
)
def test_one_that_fails_stops_the_others(tmp_path, end, code):
  last = f"wait_for('0.sleeps', '1.sleeps'); {end}"
  outcome, _ = run(tmp_path, SLEEP, SLEEP, last)
  assert outcome == processes.Outcome(code, failed=2)
  for index in range(3):
    assert is_gone(pid(tmp_path / str(index)))


def test_the_first_to_fail_is_named(tmp_path):
  """Not the one that fails because it is stopped."""
  follows = """
def fail(*_): raise ValueError('a consequence')
signal.signal(signal.SIGTERM, fail)
"""
  outcome, _ = run(
    tmp_path,
    f'{follows}{SLEEP}',
    "wait_for('0.sleeps'); raise ValueError('the cause')",
    grace=LIMIT,
  )
  assert outcome == processes.Outcome(1, failed=1)
  assert 'ValueError: a consequence' in (tmp_path / '0.log').read_text()


def test_sigterm_may_be_ignored(tmp_path):
  ignores = 'signal.signal(signal.SIGTERM, signal.SIG_IGN)'
  outcome, _ = run(
    tmp_path, f'{ignores}; {SLEEP}', "wait_for('0.sleeps'); sys.exit(3)"
  )
  assert outcome == processes.Outcome(3, failed=1)
  assert is_gone(pid(tmp_path / '0'))


def test_there_is_time_to_tidy_up(tmp_path):
  tidy = 'signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("tidy")))'
  run(
    tmp_path,
    f'{tidy}; {SLEEP}',
    "wait_for('0.sleeps'); sys.exit(3)",
    grace=LIMIT,
  )
  assert (tmp_path / '0.log').read_text() == 'tidy\n'


GRANDCHILD = """
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
code = '''
import os, pathlib, sys, time
path = pathlib.Path(sys.argv[1])
path.with_suffix('.part').write_text(str(os.getpid()))
path.with_suffix('.part').rename(path)
time.sleep(600)
'''
subprocess.Popen([sys.executable, '-c', code, str(me) + '.grandchild'])
wait_for(me.name + '.grandchild')
"""


@pytest.mark.parametrize('end', ['sys.exit(0)', 'sys.exit(1)', SLEEP])
def test_no_grandchild_is_left(tmp_path, end):
  """Nor of a process that had ended before, well or not."""
  outcome, _ = run(
    tmp_path,
    GRANDCHILD + end,
    "wait_for('0.grandchild'); time.sleep(0.1); sys.exit(4)",
  )
  assert outcome.code in (1, 4)
  assert is_gone(pid(tmp_path / '0.grandchild'))


def test_no_grandchild_is_left_when_all_end_well(tmp_path):
  outcome, _ = run(tmp_path, GRANDCHILD, '')
  assert outcome == processes.Outcome(0)
  assert is_gone(pid(tmp_path / '0.grandchild'))


def test_time_is_limited(tmp_path):
  # Long enough for Python to start; what is not started cannot be stopped.
  outcome, _ = run(tmp_path, SLEEP, SLEEP, limit=2)
  assert outcome == processes.Outcome(124)
  assert is_gone(pid(tmp_path / '0'))


def start_launcher(folder, *programs, launcher=LAUNCHER, ignored=0):
  codes = [BEGIN + code for code in programs]
  return subprocess.Popen(
    children.python('-c', launcher, str(folder), *codes, ignored=ignored),
    stdout=subprocess.PIPE,
    text=True,
  )


@pytest.mark.parametrize('number', processes.STOPPED_BY, ids=lambda n: n.name)
def test_a_signal_stops_all(tmp_path, number):
  launcher = start_launcher(tmp_path, GRANDCHILD + SLEEP, SLEEP)
  wait_for(tmp_path / '0.sleeps')
  wait_for(tmp_path / '1.sleeps')
  launcher.send_signal(number)
  said, _ = launcher.communicate(timeout=LIMIT)
  assert launcher.returncode == 128 + number
  assert f'stopped_by=<Signals.{number.name}' in said
  for name in ('0', '1', '0.grandchild'):
    assert is_gone(pid(tmp_path / name))


def test_a_second_signal_does_not_wait(tmp_path):
  """The first is answered by a process that takes its time."""
  slow = "signal.signal(signal.SIGTERM, lambda *_: ready('.asked'))"
  program = LAUNCHER.replace('grace=0.2', 'grace=3600')
  launcher = start_launcher(tmp_path, f'{slow}\n{SLEEP}', launcher=program)
  wait_for(tmp_path / '0.sleeps')
  launcher.send_signal(signal.SIGINT)
  wait_for(tmp_path / '0.asked')
  launcher.send_signal(signal.SIGINT)
  launcher.communicate(timeout=LIMIT)
  assert launcher.returncode == 130
  assert is_gone(pid(tmp_path / '0'))


@pytest.mark.parametrize('number', processes.STOPPED_BY, ids=lambda n: n.name)
def test_an_ignored_signal_stays_so(tmp_path, number):
  """As under `nohup`, and in a script's background."""
  launcher = start_launcher(tmp_path, "wait_for('sent')", ignored=number)
  wait_for(tmp_path / '0')
  launcher.send_signal(number)
  (tmp_path / 'sent').touch()
  said, _ = launcher.communicate(timeout=LIMIT)
  assert launcher.returncode == 0, said


def test_a_killed_launcher_leaves_nothing(tmp_path):
  launcher = start_launcher(tmp_path, GRANDCHILD + SLEEP, SLEEP)
  wait_for(tmp_path / '0.sleeps')
  wait_for(tmp_path / '1.sleeps')
  launcher.kill()
  launcher.communicate(timeout=LIMIT)
  for name in ('0', '1', '0.grandchild'):
    assert is_gone(pid(tmp_path / name))


@pytest.mark.parametrize('second', ['no/such/program', ''])
def test_a_start_that_fails_stops_those_before(tmp_path, second, monkeypatch):
  started = []

  class Popen(subprocess.Popen):
    def __init__(self, *args, **options):
      super().__init__(*args, **options)
      started.append(self.pid)

  monkeypatch.setattr(subprocess, 'Popen', Popen)
  jobs = jobs_of(tmp_path, SLEEP, SLEEP)
  jobs[1] = jobs[1]._replace(command=[second])
  with pytest.raises(OSError, match='No such file|Permission'):
    processes.run(jobs, show=print, limit=LIMIT)
  assert len(started) == 2  # The guard, and the first of the two.
  assert all(is_gone(number) for number in started)


GONE = (
  'Terminating process because the JAX distributed service detected fatal '
  'errors. This most likely indicates that another task died'
)
GLOO = (
  'Traceback (most recent call last):\nValueError: UNKNOWN: Gloo AllGather '
  'failed: Read error: Connection reset by peer'
)


@pytest.mark.parametrize(
  'cause', [(1, 'ValueError: x'), (-9, ''), (-6, 'abort')]
)
@pytest.mark.parametrize('other', [(-6, GONE), (1, GLOO), (None, ''), (0, '')])
def test_the_cause_is_told_from_what_it_led_to(cause, other):
  for order in itertools.permutations([cause, other, other]):
    codes, logs = zip(*order, strict=True)
    assert processes.first_failure(codes, logs) == order.index(cause)


def test_tail_of_a_log(tmp_path):
  log = tmp_path / 'log'
  log.write_bytes(b'')
  assert processes.tail(log) == ''
  lines = [f'line {i}' for i in range(50)]
  log.write_text('\n'.join(lines) + '\n')
  assert processes.tail(log, lines=3) == 'line 47\nline 48\nline 49'
  start = 'Traceback (most recent call last):'
  log.write_text('\n'.join([start, 'ValueError: first', *lines, start, *lines]))
  assert processes.tail(log) == '\n'.join([start, *lines])
  cut = processes.tail(log, most=10).splitlines()
  assert cut[0] == start
  assert cut[-1] == 'line 49'
  assert cut[5] == '… 41 lines …'
  assert len(cut) == 11
  log.write_bytes(b'a' * 300_000 + b'\n\xff\nend\n')
  assert processes.tail(log, lines=2) == '\ufffd\nend'


# The command.


def call(*arguments):
  return testing.CliRunner().invoke(cli.main, ['launch', 'local', *arguments])


def test_dry_run_prints_commands_for_a_shell(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv(
    'XLA_FLAGS', '--xla_dump_to=d --xla_force_host_platform_device_count=3'
  )
  said = call(
    *'--processes 2 --devices 4 --port 8476 --dry-run train --'.split(),
    '--gin_file=models/byte_tiny.gin',
    "--gin.MODEL_DIR='a folder'",
  )
  assert said.exit_code == 0, said.output
  search = ','.join(str(path) for path in gin_path.search_paths())
  assert [shlex.split(line) for line in said.output.splitlines()] == [
    [
      'env',
      'PYTHONUNBUFFERED=1',
      'JAX_PLATFORMS=cpu',
      'XLA_FLAGS=--xla_dump_to=d --xla_force_host_platform_device_count=4',
      *(sys.executable, '-m', 'dst_t5x.launch.t5x_main', 't5x.train'),
      f'--gin_search_paths={search}',
      '--gin_file=models/byte_tiny.gin',
      "--gin.MODEL_DIR='a folder'",
      '--multiprocess_gpu',
      '--coordinator_address=127.0.0.1:8476',
      '--process_count=2',
      f'--process_index={index}',
    ]
    for index in range(2)
  ]
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('main', ['eval', 'infer'])
def test_mains_without_such_flags_are_joined_by_ours(main):
  said = call('--port', '1', '--dry-run', main, '--', '--gin_search_paths=d')
  first, second = (shlex.split(line) for line in said.output.splitlines())
  assert first[-6:] == [
    'dst_t5x.launch.t5x_main',
    '--coordinator_address=127.0.0.1:1',
    '--process_count=2',
    '--process_index=0',
    f't5x.{main}',
    '--gin_search_paths=d',
  ]
  assert second[-3] == '--process_index=1'
  assert first[:2] == ['env', 'PYTHONUNBUFFERED=1']
  assert not any(part.startswith(('XLA_', 'JAX_')) for part in first)


def test_one_process_is_stock(monkeypatch):
  monkeypatch.setattr(sys, 'executable', 'python')
  (line,) = process_lines.commands(
    'train', ['--gin_file=a'], processes=1, port=1, search_paths=['x', 'y']
  )
  assert line == [
    *('python', '-m', 't5x.train'),
    *('--gin_search_paths=x,y', '--gin_file=a'),
  ]


def test_a_free_port_is_chosen():
  first, second = call('--dry-run', 'train', '--', '-x').output.splitlines()
  ports = {
    part.rpartition(':')[2]
    for line in (first, second)
    for part in shlex.split(line)
    if part.startswith('--coordinator_address=')
  }
  assert len(ports) == 1
  process_lines.check_port(int(ports.pop()))


def test_a_port_in_use():
  with socket.socket() as used:
    used.bind(('127.0.0.1', 0))
    used.listen()
    port = used.getsockname()[1]
    with pytest.raises(ValueError, match=f'--port {port} cannot be used'):
      process_lines.check_port(port)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--processes', '0', 'train', '--', '-x'], '0 is not in the range'),
    (['--processes', 'two', 'train', '--', '-x'], 'not a valid integer range'),
    (['--devices', '0', 'train', '--', '-x'], '0 is not in the range'),
    (['--port', '65536', 'train', '--', '-x'], '65536 is not in the range'),
    (['--limit-seconds', '0', 'train', '--', '-x'], 'not in the range'),
    (['trian', '--', '-x'], "'trian' is not one of 'train', 'eval', 'infer'"),
    (['--', '-x'], 'Missing argument'),
    (['train'], 'flags are missing: give them after --'),
    (['train', '--gin_file=a'], "T5X's own flags come after --"),
    (['--gin.EPSILON=1', 'train'], "T5X's own flags come after --"),
    (['--proceses', '2', 'train', '--', '-x'], "mean '--processes'?"),
    (['train', '--', '--process_count=3'], 'given to each process by the'),
    (['train', '--', '-x', '--nomultiprocess_gpu'], 'leave it out'),
  ],
)
def test_what_is_wrong_is_said(arguments, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  said = call(*arguments)
  assert said.exit_code == 2
  assert message in said.output
  assert not list(tmp_path.iterdir())


def test_without_t5x_nothing_starts(tmp_path):
  # A folder of that name, such as a clone, is no package.
  (tmp_path / 't5x').mkdir()
  code = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
  None if name in ('t5x', 'airio') else find(name, package))
from dst_t5x.commands import cli
cli.main(['launch', 'local', 'train', '--', '--gin_file=a'])
"""
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert 'cannot import t5x, airio' in done.stderr
  assert len(done.stderr.splitlines()) == 1
  assert [path.name for path in tmp_path.iterdir()] == ['t5x']


def test_earlier_logs_are_kept(tmp_path):
  folder = tmp_path / 'a' / 'logs'
  for attempt in ('first', 'second', 'third'):
    for path in process_lines.prepare_logs(folder, 2):
      path.write_text(attempt)
  found = {path.name: path.read_text() for path in folder.iterdir()}
  assert found == {
    'process_0.log': 'third',
    'process_1.log': 'third',
    'process_0.log.2': 'second',
    'process_1.log.2': 'second',
    'process_0.log.1': 'first',
    'process_1.log.1': 'first',
  }


# The whole command, with packages of T5X's names that do something simpler.


@pytest.fixture
def stand_in(tmp_path):
  """A folder with a `t5x.train` that prints, waits or fails as it is told."""
  folder = tmp_path / 'packages'
  for name in ('t5x', 'airio', 'jestimator'):
    (folder / name).mkdir(parents=True)
    (folder / name / '__init__.py').touch()
  (folder / 't5x' / 'train.py').write_text("""
import atexit, os, pathlib, sys, time
assert __name__ == '__main__'
index = sys.argv[-1].rpartition('=')[2]
path = pathlib.Path(f'pid_{index}')
path.with_suffix('.part').write_text(str(os.getpid()))
path.with_suffix('.part').rename(path)
print('process', index, 'of', os.environ.get('XLA_FLAGS'))
# As JAX's own, which waits minutes for the other processes.
atexit.register(time.sleep, 600 if '--fail' in sys.argv else 0)
while '--wait' in sys.argv or '--fail' in sys.argv and index == '0':
  time.sleep(0.01)
if '--fail' in sys.argv:
  while not pathlib.Path('pid_0').exists():
    time.sleep(0.01)
  raise ValueError('the cause')
""")
  return folder


def launch(stand_in, *arguments):
  path = os.pathsep.join([str(stand_in), os.environ.get('PYTHONPATH', '')])
  return subprocess.Popen(
    children.python(*arguments),
    cwd=stand_in.parent,
    env={**os.environ, 'PYTHONPATH': path, 'XLA_FLAGS': '', 'NO_COLOR': '1'},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


@pytest.mark.parametrize(
  'program',
  [
    ['-m', 'dst_t5x.commands.cli', 'launch', 'local'],
    ['-m', 'dst_t5x.launch.local'],
    [str(REPOSITORY / 'launch' / 'local')],
  ],
  ids=['command', 'module', 'folder'],
)
def test_command(stand_in, program):
  done = launch(stand_in, *program, '--devices', '4', 'train', '--', '--x')
  out, said = done.communicate(timeout=LIMIT)
  flag = '--xla_force_host_platform_device_count=4'
  assert done.returncode == 0, said
  assert out == f'process 0 of {flag}\n'
  (folder,) = (stand_in.parent / 't5x-logs').iterdir()
  assert (folder / 'process_1.log').read_text() == f'process 1 of {flag}\n'
  assert said.splitlines() == [
    f't5x.train in 2 processes; logs in t5x-logs/{folder.name}',
    '2 processes ended well',
  ]


def test_command_names_what_failed(stand_in):
  done = launch(
    stand_in,
    *'-m dst_t5x.launch.local --logs logs train -- --fail'.split(),
  )
  _, said = done.communicate(timeout=LIMIT)
  assert done.returncode == 1
  lines = said.splitlines()
  assert lines[1] == 'Traceback (most recent call last):'
  assert lines[-2] == 'ValueError: the cause'
  assert lines[-1] == (
    'process 1 failed with exit code 1; its log is logs/process_1.log; no '
    'process is left; once its cause is gone, the same command resumes'
  )
  for index in range(2):
    assert is_gone(pid(stand_in.parent / f'pid_{index}'))


def test_command_is_stopped_by_ctrl_c(stand_in):
  started = launch(
    stand_in, '-m', 'dst_t5x.launch.local', 'train', '--', '--wait'
  )
  pids = [pid(stand_in.parent / f'pid_{index}') for index in range(2)]
  started.send_signal(signal.SIGINT)
  _, said = started.communicate(timeout=LIMIT)
  assert started.returncode == 130
  assert said.splitlines()[-1] == (
    'stopped by SIGINT; no process is left; the same command resumes'
  )
  assert all(is_gone(number) for number in pids)


def test_command_goes_on_when_no_one_reads(stand_in):
  """As with `| head`: the log is what counts."""
  started = launch(stand_in, '-m', 'dst_t5x.launch.local', 'train', '--', '--x')
  out, errors = started.stdout, started.stderr
  assert out is not None
  assert errors is not None
  out.close()
  said = errors.read()
  assert started.wait(LIMIT) == 0, said
  assert '2 processes ended well' in said


def test_logs_that_cannot_be_written(stand_in):
  (stand_in.parent / 'file').touch()
  done = launch(
    stand_in,
    *'-m dst_t5x.launch.local --logs file/logs train -- --x'.split(),
  )
  _, said = done.communicate(timeout=LIMIT)
  assert done.returncode == 2
  assert said == 'dst-t5x: file/logs: Not a directory\n'


# What the processes run.


@pytest.mark.parametrize(
  ('arguments', 'expected'),
  [
    ((False, None, None, None), None),
    ((True, None, None, None), {}),
    (
      (False, 'a:1', 3, 2),
      {'coordinator_address': 'a:1', 'num_processes': 3, 'process_id': 2},
    ),
  ],
)
def test_arguments_for_jax(arguments, expected):
  assert t5x_main.distributed_arguments(*arguments) == expected


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((False, 'a:1', None, 0), 'belong together'),
    ((False, None, 2, 0), 'belong together'),
    ((False, 'a:1', 2, 2), 'not one of 2 processes'),
    ((False, 'a:1', 2, -1), 'not one of 2 processes'),
    ((True, 'a:1', 2, 0), '--auto lets JAX find'),
  ],
)
def test_wrong_arguments_for_jax(arguments, message):
  with pytest.raises(ValueError, match=message):
    t5x_main.distributed_arguments(*arguments)


@pytest.mark.parametrize('by', ['options', 'variables'])
def test_process_joins_and_runs_the_main(tmp_path, by):
  """With a stand-in of JAX's, which prints what it is asked."""
  (tmp_path / 'jax.py').write_text("""
class distributed:
  initialize = staticmethod(lambda **arguments: print(arguments))
""")
  (tmp_path / 'a_main.py').write_text("""
import sys
print(__name__, sys.argv[1:])
sys.exit(5)
""")
  options = {
    'coordinator_address': 'a:1',
    'process_count': '2',
    'process_index': '1',
  }
  environment, flags = dict(os.environ), []
  if by == 'options':
    flags = [f'--{name}={value}' for name, value in options.items()]
  else:
    for name, value in options.items():
      environment[f'DST_T5X_{name.upper()}'] = value
  done = subprocess.run(
    [sys.executable, '-m', 'dst_t5x.launch.t5x_main', *flags, 'a_main']
    + ['--auto', '--process_count=9'],
    cwd=tmp_path,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.stdout.splitlines() == [
    "{'coordinator_address': 'a:1', 'num_processes': 2, 'process_id': 1}",
    "__main__ ['--auto', '--process_count=9']",
  ]
  assert done.returncode == 5, done.stderr
