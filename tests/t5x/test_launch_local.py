"""The launcher with stock T5X: two processes that are one run.

That such a run agrees with one in a single process is in test_resume.py.
"""

import os
import pathlib
import signal
import time

import pytest

from tests import checks
from tests.t5x import runs


def process(launcher: int, index: int) -> int | None:
  """The id of one of a launcher's processes; None before it has started."""
  for path in pathlib.Path('/proc').glob('[0-9]*'):
    try:
      parent = path.joinpath('stat').read_text().rpartition(')')[2].split()[1]
      arguments = path.joinpath('cmdline').read_bytes().decode().split('\0')
    except FileNotFoundError:
      continue  # It has ended.
    if int(parent) == launcher and f'--process_index={index}' in arguments:
      return int(path.name)
  return None


def test_both_processes_took_part(once, tune):
  run = runs.two_processes(once, tune)
  for index in range(2):
    log = (run.parent / 'logs' / f'process_{index}.log').read_text()
    assert f'Process ID: {index}' in log
    assert 'Finished.' in log
  # The first one's lines were shown.
  out = (run.parent / 'launcher_out.txt').read_text()
  assert out == (run.parent / 'logs' / 'process_0.log').read_text()


def test_two_processes_infer_what_one_does(once, tuned, tmp_path):
  """From a delta and its seed, which each process reads for itself."""
  line = runs.infer_line(tuned / 'run/checkpoint_1800', tmp_path / 'out')
  done = runs.run_processes(line, tmp_path, devices=1).must_succeed()
  found = runs.predictions(tmp_path / 'out')
  assert len(found) == 500
  assert found == runs.predictions(runs.predicted(once, tuned))
  for index, log in enumerate(done.logs):
    assert f'Process ID: {index}' in log
    assert "Finished inference for task 'number_words'" in log
  # Only the first one writes.
  assert [log.count('Results written to') for log in done.logs] == [1, 0]


@pytest.mark.slow
def test_two_split_processes_infer_from_their_own_run(once, tune, tmp_path):
  """2 processes × 4 devices that split every parameter, against one device."""
  checkpoint = runs.two_processes(once, tune) / 'checkpoint_1012'
  split = runs.infer_line(checkpoint, tmp_path / 'two', NUM_PARTITIONS=4)
  runs.run_processes(split, tmp_path).must_succeed()
  runs.run(
    runs.infer_line(checkpoint, tmp_path / 'one'), tmp_path
  ).must_succeed()
  found = runs.predictions(tmp_path / 'two')
  assert len(found) == 500
  assert found == runs.predictions(tmp_path / 'one')


@pytest.mark.skipif(
  not pathlib.Path('/proc/self/cmdline').exists(), reason='reads /proc'
)
def test_one_killed_stops_both_and_the_same_command_resumes(
  once, tune, tmp_path
):
  whole = runs.two_processes(once, tune)
  line = tune(tmp_path / 'run', NUM_PARTITIONS=4, **runs.COMPARED)
  launcher = runs.start_processes(line, tmp_path)
  victim = None
  while not (tmp_path / 'run' / 'checkpoint_1006').exists():
    assert launcher.poll() is None, runs.finish_processes(launcher, tmp_path)
    victim = victim or process(launcher.pid, 1)
    time.sleep(0.02)
  assert victim is not None
  os.kill(victim, signal.SIGKILL)
  stopped = runs.finish_processes(launcher, tmp_path)
  assert stopped.code == 128 + signal.SIGKILL
  assert stopped.said.splitlines()[-1] == (
    'process 1 was killed by signal 9; its log is logs/process_1.log; no '
    'process is left; once its cause is gone, the same command resumes'
  )
  assert process(launcher.pid, 0) is None
  assert max(runs.steps(tmp_path / 'run')) == 1006

  resumed = runs.run_processes(line, tmp_path).must_succeed()
  for log in resumed.logs:
    assert 'Resuming DST after 6 of its own steps' in log
  a, b = (
    runs.arrays(path / 'checkpoint_1012') for path in (whole, tmp_path / 'run')
  )
  assert a.keys() == b.keys()
  checks.same_bits(a, b)
