"""Stock T5X's mains as subprocesses, and what they leave on the disk.

Nothing here asks our hooks: checkpoints are read through `orbax` and NumPy.
"""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorflow as tf
from etils import epath
from tensorboard.backend.event_processing import event_accumulator

from dst_t5x.recipes import gin_path

MODEL = 'models/byte_tiny.gin'
TASK = 'tasks/number_words.gin'
# What runs on different meshes share, to be compared.
COMPARED = {'SAME_BATCHES': True, 'CHECKPOINT_PERIOD': 6}


@dataclasses.dataclass
class Run:
  """A main that has ended."""

  code: int
  log: str

  def must_succeed(self) -> 'Run':
    assert self.code == 0, self.log[-6000:]
    return self


def command(main: str, *files: str, **macros: Any) -> list[str]:
  """The command line of `python -m t5x.<main>`; macros are gin's."""
  search = ','.join(str(path) for path in gin_path.search_paths())
  return [
    sys.executable,
    '-m',
    f't5x.{main}',
    f'--gin_search_paths={search}',
    *(f'--gin_file={name}' for name in files),
    *(f'--gin.{name}={_gin(value)}' for name, value in macros.items()),
  ]


class Gin(str):
  """Text that gin is to read as it is, such as '@inner.Optax()'."""


def _gin(value: Any) -> str:
  return str(value) if isinstance(value, Gin) else repr(value)


# What XLA compiled is kept for the next process that needs the same program:
# most runs here are of the same few, and compiling is half of their work.
PROGRAMS = pathlib.Path(__file__).parents[2] / '.pytest_cache' / 't5x_programs'


def environment(devices: int = 1) -> dict[str, str]:
  return {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'JAX_COMPILATION_CACHE_DIR': str(PROGRAMS),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.3',
    'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
    'TF_CPP_MIN_LOG_LEVEL': '2',
  }


def start(
  line: list[str], cwd: pathlib.Path, log: pathlib.Path, *, devices: int = 1
) -> subprocess.Popen:
  with log.open('wb') as file:
    return subprocess.Popen(
      line,
      cwd=cwd,
      env=environment(devices),
      stdout=file,
      stderr=subprocess.STDOUT,
      stdin=subprocess.DEVNULL,
    )


def run(
  line: list[str], cwd: pathlib.Path, *, devices: int = 1, limit: float = 1200
) -> Run:
  log = cwd / f'log_{time.monotonic_ns()}.txt'
  process = start(line, cwd, log, devices=devices)
  try:
    code = process.wait(limit)
  finally:
    process.kill()
  return Run(code, log.read_text(errors='replace'))


@dataclasses.dataclass
class Processes:
  """A main in several processes that has ended: what the launcher said."""

  code: int
  said: str
  logs: list[str]

  def must_succeed(self) -> 'Processes':
    assert self.code == 0, self.said[-6000:]
    return self


def start_processes(
  line: list[str],
  cwd: pathlib.Path,
  *,
  processes: int = 2,
  devices: int = 4,
  limit: float = 1200,
) -> subprocess.Popen[str]:
  """Starts the launcher with what `command` returned."""
  flags = line[line.index('-m') + 2 :]
  main = line[line.index('-m') + 1].removeprefix('t5x.')
  with (cwd / 'launcher_out.txt').open('wb') as out:
    return subprocess.Popen(
      [
        *(sys.executable, '-m', 'dst_t5x.launch.local'),
        *(f'--processes={processes}', f'--devices={devices}'),
        *(f'--limit-seconds={limit}', '--logs=logs', main, '--', *flags),
      ],
      cwd=cwd,
      env=environment(devices),
      stdin=subprocess.DEVNULL,
      stdout=out,
      stderr=subprocess.PIPE,
      text=True,
    )


def finish_processes(
  started: subprocess.Popen[str], cwd: pathlib.Path
) -> Processes:
  """Waits for the launcher, which has a limit of its own."""
  try:
    _, said = started.communicate()
  finally:
    started.terminate()
  logs = sorted((cwd / 'logs').glob('process_*.log'))
  return Processes(
    started.returncode, said, [log.read_text(errors='replace') for log in logs]
  )


def run_processes(
  line: list[str], cwd: pathlib.Path, **options: Any
) -> Processes:
  """The same main in several processes with real collectives."""
  return finish_processes(start_processes(line, cwd, **options), cwd)


def two_processes(once: Callable, tune: Callable) -> pathlib.Path:
  """MODEL_DIR of 12 steps on 2 processes × 4 devices, made once for all tests.

  The processes' logs are beside it.
  """

  def build(folder: pathlib.Path) -> None:
    line = tune(folder / 'run', NUM_PARTITIONS=4, **COMPARED)
    run_processes(line, folder).must_succeed()

  return once('two_processes', build) / 'run'


def infer_line(
  checkpoint: pathlib.Path, out: pathlib.Path, **macros: Any
) -> Any:
  """The command line of `t5x.infer` on the task that all runs here learn."""
  return command(
    'infer',
    MODEL,
    TASK,
    'runs/infer_t5x.gin',
    CHECKPOINT_PATH=str(checkpoint),
    INFER_OUTPUT_DIR=str(out),
    **{'BATCH_SIZE': 100, **macros},
  )


def predicted(once: Callable, tuned: pathlib.Path) -> pathlib.Path:
  """What `t5x.infer` wrote from the tuned delta, once for all tests."""

  def build(folder: pathlib.Path) -> None:
    line = infer_line(tuned / 'run/checkpoint_1800', folder / 'predictions')
    run(line, folder).must_succeed()

  return once('predicted', build) / 'predictions'


def kill_when(
  line: list[str],
  cwd: pathlib.Path,
  seconds: float,
  *,
  after: str = 'Training: step',
  limit: float = 600,
) -> str:
  """Starts a main and kills it some seconds after its log says something.

  Returns the log; the main may also have ended by itself.
  """
  log = cwd / f'log_{time.monotonic_ns()}.txt'
  process = start(line, cwd, log)
  end = time.monotonic() + limit
  while after not in log.read_text(errors='replace'):
    assert time.monotonic() < end, log.read_text(errors='replace')[-3000:]
    if process.poll() is not None:
      break
    time.sleep(0.05)
  try:
    process.wait(seconds)
  except subprocess.TimeoutExpired:
    process.send_signal(signal.SIGKILL)
    process.wait()
  return log.read_text(errors='replace')


def arrays(checkpoint: pathlib.Path) -> dict[str, np.ndarray]:
  """All arrays of an Orbax checkpoint, by path, as NumPy reads them."""
  handler = ocp.PyTreeCheckpointHandler()
  path: Any = epath.Path(checkpoint / 'state')
  try:
    found = handler.metadata(path)
    # As NumPy arrays: the devices that wrote them may be of other processes.
    wanted = jax.tree.map(
      lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
      getattr(found, 'tree', found),
    )
    tree = handler.restore(
      path, args=ocp.args.PyTreeRestore(restore_args=wanted)
    )
  finally:
    handler.close()
  flat: dict[str, np.ndarray] = {}

  def walk(node: Any, prefix: tuple[str, ...]) -> None:
    if isinstance(node, dict):
      for key, child in node.items():
        walk(child, (*prefix, key))
    else:
      flat['/'.join(prefix)] = np.asarray(node)

  walk(tree, ())
  return flat


def steps(model_dir: pathlib.Path) -> list[int]:
  return sorted(
    int(path.name.removeprefix('checkpoint_'))
    for path in model_dir.glob('checkpoint_*')
    if path.name.removeprefix('checkpoint_').isdigit()
  )


def metrics(folder: pathlib.Path, task: str) -> dict[int, dict[str, float]]:
  """What seqio's JSON logger wrote, by step."""
  lines = (folder / f'{task}-metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return {row.pop('step'): row for row in rows}


def predictions(folder: pathlib.Path) -> list[Any]:
  """The predictions that `t5x.infer` wrote, in order."""
  (file,) = folder.glob('*-predict.jsonl-00000-of-00001')
  return [
    json.loads(line)['prediction'] for line in file.read_text().splitlines()
  ]


def scalars(folder: pathlib.Path) -> dict[str, dict[int, float]]:
  """Every scalar in TensorBoard's files, by name and step."""
  reader = event_accumulator.EventAccumulator(
    str(folder), size_guidance={event_accumulator.TENSORS: 0}
  )
  reader.Reload()
  found: dict[str, dict[int, float]] = {}
  for tag in reader.Tags()['tensors']:
    for event in reader.Tensors(tag):
      value = tf.make_ndarray(event.tensor_proto)
      if value.dtype == np.float32 and not value.shape:
        found.setdefault(tag, {})[event.step] = float(value)
  return found
