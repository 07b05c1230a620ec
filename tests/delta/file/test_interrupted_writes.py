"""Writing is atomic: a crash or a full disk leaves the old file or the new."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from dst_t5x.arrays import atomic
from dst_t5x.delta.file import container
from tests.delta.file.example_deltas import (
  MANY,
  MIXED,
  ROOT,
  uniform_delta,
)


def test_kill_while_writing_leaves_one_of_the_two_deltas(tmp_path, long):
  file = tmp_path / 'a.safetensors'
  deltas = [uniform_delta(300_000, k) for k in (30_000, 40_000)]
  start = time.monotonic()
  container.write(deltas[0], file)
  duration = time.monotonic() - start
  # One process imports everything; those that are killed are forks of it. Each
  # tells its number when the file holds the delta that it began with, and the
  # two take turns at that: however slow the machine is, both are met.
  code = textwrap.dedent("""
    import itertools, os, sys
    from dst_t5x.delta.file import container
    from tests.delta.file.example_deltas import uniform_delta
    deltas = [uniform_delta(300_000, k) for k in (30_000, 40_000)]
    print('ready', flush=True)
    for first, line in enumerate(sys.stdin):
      child = os.fork()
      if not child:
        for turn in itertools.count(first):
          container.write(deltas[turn % 2], sys.argv[1])
          if turn == first:
            print(os.getpid(), flush=True)
      os.waitpid(child, 0)
      print('dead', flush=True)
  """)
  delays, seen = random.Random(0), set()
  with subprocess.Popen(
    [sys.executable, '-W', 'ignore', '-c', code, file],
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  ) as parent:
    assert parent.stdin is not None and parent.stdout is not None
    assert parent.stdout.readline() == 'ready\n'
    for _ in range(1000 if long else 20):
      parent.stdin.write('go\n')
      parent.stdin.flush()
      child = int(parent.stdout.readline())
      time.sleep(delays.uniform(0.0, 2 * duration))
      os.kill(child, signal.SIGKILL)
      assert parent.stdout.readline() == 'dead\n'
      seen.add(deltas.index(container.read(file)))
    parent.stdin.close()
  assert seen == {0, 1}


def test_a_full_disk_leaves_the_old_delta(tmp_path, monkeypatch):
  file = tmp_path / 'a.safetensors'
  container.write(MIXED, file)

  def full(_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(atomic.os, 'fsync', full)
  with pytest.raises(OSError, match='No space left'):
    container.write(MANY, file)
  monkeypatch.undo()
  assert container.read(file) == MIXED
  assert [path.name for path in tmp_path.iterdir()] == ['a.safetensors']
