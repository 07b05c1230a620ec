"""How long T5X takes from gin to the first step, by method and depth.

  python benchmarks/start_up.py --json start_up.json

Target: `dst` at most 1.3 times `full` at any depth, in processor time. Each run
is stock `t5x.train` in a process of its own, on a random seed of tiny width,
and nothing that was compiled is kept. T5X's log says when a phase ends:

  begin    imports, gin, data, the seed
  save     the first checkpoint, of the seed
  compile  the train step
  end      one step, and the checkpoint after it

The ratio is of begin, save and compile: the wait for the first step. Processor
time counts where others share the machine. Needs T5X. The defaults take about
five minutes on two cores.
"""

import json
import logging
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import click
import numpy as np
import rich.console
import rich.table

from dst_t5x.arrays import paths
from dst_t5x.network import transformer
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.recipes import gin_path
from dst_t5x.seeds import conversion

# What T5X logs when a phase ends.
ENDS = {
  'begin': 'Saving checkpoint before the training loop starts.',
  'save': 'Starting training loop.',
  'compile': 'Training for 1 steps.',
  'end': 'Finished.',
}
START_UP = ('begin', 'save', 'compile')
_STEP = 1000


class Clock(NamedTuple):
  """Seconds since a process began: on the wall, and of processors."""

  wall: float
  cpu: float


class Stopwatch(logging.Handler):
  """Notes when T5X's log says that a phase ends."""

  def __init__(self) -> None:
    super().__init__()
    self.times: dict[str, Clock] = {}
    self._begin = time.monotonic()

  def emit(self, record: logging.LogRecord) -> None:
    for phase, message in ENDS.items():
      if record.getMessage() == message:
        self.times[phase] = Clock(
          time.monotonic() - self._begin, time.process_time()
        )


def run_t5x(out: str, flags: Sequence[str]) -> None:
  """Runs T5X's main in this process, and writes when its phases ended."""
  stopwatch = Stopwatch()
  logging.getLogger('absl').addHandler(stopwatch)
  sys.argv = ['t5x.train', *flags]
  try:
    runpy.run_module('t5x.train', run_name='__main__', alter_sys=True)
  finally:
    pathlib.Path(out).write_text(json.dumps(stopwatch.times))


def phases(ends: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
  """Returns how long every phase took, from when each of them ended.

  Args:
    ends: wall and processor time (seconds) by phase.

  Returns:
    'wall' and 'cpu' (seconds) by phase.
  """
  if ends.keys() != ENDS.keys():
    missing = ', '.join(ENDS.keys() - ends.keys())
    raise ValueError(f'T5X did not log the end of: {missing}')
  took, before = {}, (0.0, 0.0)
  for phase in ENDS:
    wall, cpu = ends[phase]
    took[phase] = {'wall': wall - before[0], 'cpu': cpu - before[1]}
    before = wall, cpu
  return took


def ratio(
  row: Mapping[str, Mapping[str, float]],
  full: Mapping[str, Mapping[str, float]],
  clock: str,
) -> float:
  """Returns how much longer the wait for the first step is than in `full`."""

  def total(run: Mapping[str, Mapping[str, float]]) -> float:
    return sum(run[phase][clock] for phase in START_UP)

  return total(row) / total(full)


def make_table(results: Sequence[Mapping[str, Any]]) -> Any:
  """Returns a table of processor time by phase, and the ratios to `full`."""
  table = rich.table.Table(title='processor seconds from gin to the first step')
  for name in ('layers', 'method', *ENDS, 'ratio', 'wall ratio'):
    table.add_column(name, justify='left' if name == 'method' else 'right')
  full = {
    run['layers']: run['phases'] for run in results if run['method'] == 'full'
  }
  for run in results:
    own, layers = run['phases'], run['layers']
    ratios = ['', '']
    if layers in full:
      ratios = [
        f'{ratio(own, full[layers], clock):.2f}' for clock in ('cpu', 'wall')
      ]
    table.add_row(
      f'{layers}+{layers}',
      run['method'],
      *(f'{own[phase]["cpu"]:.1f}' for phase in ENDS),
      *ratios,
    )
  return table


def config_of(layers: int, width: int) -> NetworkConfig:
  """Returns a tiny network with as many layers in encoder and decoder."""
  return NetworkConfig(
    vocab_size=384,
    emb_dim=width,
    num_heads=2,
    num_encoder_layers=layers,
    num_decoder_layers=layers,
    head_dim=width // 2,
    mlp_dim=2 * width,
    mlp_activations=('gelu', 'linear'),
    logits_via_embedding=False,
  )


def write_seed(config: NetworkConfig, folder: pathlib.Path) -> str:
  """Writes a random seed as T5X would, and returns its checkpoint."""
  rng = np.random.default_rng(0)
  params = {
    path: rng.normal(0, 0.05, x.shape).astype(np.float32)
    for path, x in transformer.param_shapes(config).items()
  }
  conversion.write(
    't5x', paths.unflatten(params), folder, step=_STEP, config=config.to_dict()
  )
  return str(folder / f'checkpoint_{_STEP}')


def run(
  method: str, config: NetworkConfig, seed: str, options: Sequence[str]
) -> dict[str, dict[str, float]]:
  """Returns the phases of one run, in a process of its own."""
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder, 'times.json')
    macros = {
      'INITIAL_CHECKPOINT_PATH': seed,
      'MODEL_DIR': str(pathlib.Path(folder, 'run')),
      'LEARNING_RATE': 0.03,
      'FINETUNE_STEPS': 1,
      'CHECKPOINT_PERIOD': 1,
      'EVAL_PERIOD': 0,
      'STATS_PERIOD': 1,
      'BATCH_SIZE': 8,
    }
    if method != 'full':
      macros['EPSILON'] = 0.01
    sizes = {name.upper(): size for name, size in config.to_dict().items()}
    files = (
      'models/byte_tiny.gin',
      f'methods/{method}.gin',
      'tasks/number_words.gin',
      'runs/finetune_t5x.gin',
    )
    search = ','.join(str(path) for path in gin_path.search_paths())
    line = [
      *(sys.executable, __file__, '--child', str(out)),
      f'--gin_search_paths={search}',
      *(f'--gin_file={name}' for name in files),
      *(
        f'--gin.{name}={sizes[name]!r}'
        for name in sizes
        if name.endswith(('_LAYERS', '_DIM', '_HEADS'))
      ),
      *(f'--gin.{name}={value!r}' for name, value in macros.items()),
      *options,
    ]
    done = subprocess.run(
      line,
      env={**os.environ, 'JAX_ENABLE_COMPILATION_CACHE': 'false'},
      capture_output=True,
      text=True,
      check=False,
    )
    if done.returncode:
      raise click.ClickException(
        f'{method} at {config.num_encoder_layers} layers failed:\n'
        f'{done.stderr[-3000:]}'
      )
    return phases(json.loads(out.read_text()))


@click.command()
@click.option(
  '--layers', 'depths', multiple=True, default=(2, 6, 12), show_default=True
)
@click.option('--width', default=32, show_default=True, help='EMB_DIM.')
@click.option(
  '--method',
  'methods',
  multiple=True,
  default=('full', 'dst'),
  help='A file of gin/methods/, without its ending.',
  show_default=True,
)
@click.option('--flag', 'options', multiple=True, help='Further flag of T5X.')
@click.option('--json', 'path', type=click.Path(), help='Write JSON here.')
def main(
  depths: tuple[int, ...],
  width: int,
  methods: tuple[str, ...],
  options: tuple[str, ...],
  path: str | None,
) -> None:
  """Times the start of T5X runs."""
  console = rich.console.Console()
  results = []
  with tempfile.TemporaryDirectory() as folder:
    for layers in depths:
      config = config_of(layers, width)
      seed = write_seed(config, pathlib.Path(folder, str(layers)))
      for method in methods:
        with console.status(f'{method}, {layers}+{layers} layers'):
          found = run(method, config, seed, options)
        results.append({'layers': layers, 'method': method, 'phases': found})
  console.print(make_table(results))
  if path is not None:
    report = {'width': width, 'flags': list(options), 'runs': results}
    pathlib.Path(path).write_text(json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
  if sys.argv[1:2] == ['--child']:
    run_t5x(sys.argv[2], sys.argv[3:])
  else:
    main()
