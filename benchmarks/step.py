"""What DST adds to a step of full fine-tuning.

  python benchmarks/step.py --json step.json
  python benchmarks/step.py --size byte_tiny

Target: a train step of DST takes at most 1.02 times that of full fine-tuning
on T5 1.1 small at ε = 1e-4. Sorting instead is many times slower, which is why
the paper has its algorithm 2 (its figure 5).

All variants take turns on the same gradients or batch in one run, so whatever
else the machine does meets all of them; the medians are compared, of time and,
less disturbed by other programs, of processor time on all cores. `update` is
the inner optimizer and the method alone, in units of the optimizer's update;
`step` is the whole train step of `dst-t5x train`, from a random start, on a
copying task. `passes` is how often a step counted scores, on average over the
last quarter of the turns; from the second pass on it reads only the silos that
are not done. What DST adds does not depend on the batch, so its share falls
with the batch's tokens.

Small takes about four minutes on two cores, half of them to compile.
"""

import functools
import json
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.console
import rich.progress
import rich.table

from dst_t5x.core import methods, plans, selective, thresholds
from dst_t5x.network import transformer
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.standalone import optimizers
from dst_t5x.standalone.train_state import data_mesh, init_state, make_step

SIZES = {
  # As in gin/models.
  'byte_tiny': NetworkConfig(384, 96, 8, 2, 2, 12, 192),
  'small': NetworkConfig(32128, 512, 6, 8, 8, 64, 1024),
}
VARIANTS = {
  'full': methods.full(),
  'exact': methods.dst(),
  'algorithm2': methods.dst(threshold=thresholds.algorithm2),
  'by_sorting': methods.dst(threshold=thresholds.by_sorting),
}
# Sorting takes seconds a step, so it takes only a few turns.
SORTED_TURNS = 2

Advance = Callable[[int], Any]


def make_plan(name: str, params: Any, epsilon: float) -> plans.Plan:
  """Returns the plan of a variant for these parameters."""
  budget = None if name == 'full' else epsilon
  return plans.make(VARIANTS[name], params, epsilon=budget)


def make_updates(
  config: NetworkConfig, epsilon: float, rate: float, names: list[str]
) -> dict[str, Advance]:
  """Returns functions that take the n-th update of each variant."""
  rng = np.random.default_rng(0)
  seed = transformer.init_params(config, jax.random.key(0))
  gradients = [
    jax.tree.map(
      lambda x: jnp.asarray(
        1e-3 * rng.standard_normal(x.shape, dtype=np.float32)
      ),
      seed,
    )
    for _ in range(2)
  ]
  tx = optax.adamw(rate)

  def propose(gradients: Any, inner: Any, params: Any) -> tuple[Any, Any]:
    u, inner = tx.update(gradients, inner, params)
    return optax.apply_updates(params, u), inner

  def variant(name: str) -> Advance:
    plan = make_plan(name, seed, epsilon)
    step = jax.jit(
      functools.partial(selective.step, plan, propose), donate_argnums=(1, 2)
    )
    params = jax.tree.map(jnp.copy, seed)
    state = selective.init(plan, params, tx.init(params))

    def advance(n: int) -> Any:
      nonlocal params, state
      params, state = step(gradients[n % 2], state, params)
      jax.block_until_ready(params)
      return state.metrics

    return advance

  return {name: variant(name) for name in names}


def make_steps(
  config: NetworkConfig,
  epsilon: float,
  rate: float,
  names: list[str],
  batch: int,
  length: int,
) -> dict[str, Advance]:
  """Returns functions that take the n-th train step of each variant."""
  seed = transformer.init_params(config, jax.random.key(0))
  mesh, tx = data_mesh(), optimizers.adamw(rate)
  rng = np.random.default_rng(0)
  tokens = rng.integers(3, config.vocab_size, (4, batch, length)).astype('i4')
  batches = [
    {
      'encoder_input_tokens': t,
      'decoder_input_tokens': np.pad(t[:, :-1], ((0, 0), (1, 0))),
      'decoder_target_tokens': t,
      'decoder_loss_weights': np.ones_like(t, np.float32),
    }
    for t in tokens
  ]

  def variant(name: str) -> Advance:
    plan = make_plan(name, seed, epsilon)
    state = init_state(plan, tx, seed, mesh=mesh)
    step = make_step(config, plan, tx, mesh=mesh)

    def advance(n: int) -> Any:
      nonlocal state
      state, _ = step(state, batches[n % 4])
      jax.block_until_ready(state)
      return state.selective.metrics

    return advance

  return {name: variant(name) for name in names}


def measure(
  variants: dict[str, Advance], turns: int, progress: rich.progress.Progress
) -> dict[str, dict[str, float]]:
  """Returns medians of seconds, CPU seconds and passes of each variant."""
  seconds: dict[str, list[float]] = {name: [] for name in variants}
  cpu: dict[str, list[float]] = {name: [] for name in variants}
  passes: dict[str, list[int]] = {name: [] for name in variants}
  first_seconds: dict[str, float] = {}
  task = progress.add_task('', total=(turns + 1) * len(variants))
  for n in range(turns + 1):
    for name, advance in variants.items():
      progress.update(task, description=f'{name}, turn {n}')
      if name != 'by_sorting' or n <= SORTED_TURNS:
        start, start_cpu = time.perf_counter(), time.process_time()
        metrics = advance(n)
        took = time.perf_counter() - start
        if n:
          seconds[name].append(took)
          cpu[name].append(time.process_time() - start_cpu)
          passes[name].append(int(metrics.passes))
        else:
          first_seconds[name] = took
      progress.advance(task)
  progress.remove_task(task)
  full = statistics.median(seconds['full'])
  full_cpu = statistics.median(cpu['full'])
  return {
    name: {
      'seconds': statistics.median(seconds[name]),
      'ratio': statistics.median(seconds[name]) / full,
      'cpu_seconds': statistics.median(cpu[name]),
      'cpu_ratio': statistics.median(cpu[name]) / full_cpu,
      'first_seconds': first_seconds[name],
      'passes': statistics.mean(passes[name][-max(1, turns // 4) :]),
    }
    for name in variants
  }


def make_table(part: str, results: dict[str, dict[str, float]]) -> Any:
  """Returns a table of the medians and their ratios to full fine-tuning."""
  title = {
    'update': 'optimizer and method alone (1 = an AdamW update)',
    'step': 'whole train step (1 = full fine-tuning)',
  }[part]
  table = rich.table.Table(title=title)
  columns = ('variant', 'ms', 'ratio', 'CPU ms', 'ratio', 'passes', 'first, s')
  for column in columns:
    table.add_column(column, justify='left' if column == 'variant' else 'right')
  for name, row in results.items():
    table.add_row(
      name,
      f'{1e3 * row["seconds"]:.1f}',
      f'{row["ratio"]:.3f}',
      f'{1e3 * row["cpu_seconds"]:.1f}',
      f'{row["cpu_ratio"]:.3f}',
      f'{row["passes"]:.1f}' if name != 'full' else '',
      f'{row["first_seconds"]:.1f}',
    )
  return table


@click.command()
@click.option('--size', type=click.Choice(list(SIZES)), default='small')
@click.option('--epsilon', default=1e-4, show_default=True)
@click.option('--rate', default=1e-3, show_default=True, help='Of AdamW.')
@click.option(
  '--turns',
  default=24,
  show_default=True,
  help='Updates timed, and twice the train steps.',
)
@click.option('--batch', default=8, show_default=True, help='Examples a step.')
@click.option('--length', default=128, show_default=True, help='Tokens a side.')
@click.option(
  '--part',
  'parts',
  type=click.Choice(['update', 'step']),
  multiple=True,
  default=['update', 'step'],
  show_default=True,
)
@click.option(
  '--variant',
  'names',
  type=click.Choice(list(VARIANTS)),
  multiple=True,
  default=list(VARIANTS),
  help='Variant to measure; full is always measured.',
)
@click.option('--json', 'path', type=click.Path(), help='Write JSON here.')
def main(
  size: str,
  epsilon: float,
  rate: float,
  turns: int,
  batch: int,
  length: int,
  parts: tuple[str, ...],
  names: tuple[str, ...],
  path: str | None,
) -> None:
  """Times a step of DST against one of full fine-tuning."""
  config = SIZES[size]
  variant_names = ['full', *(name for name in names if name != 'full')]
  console = rich.console.Console()
  report: dict[str, Any] = {
    'size': size,
    'epsilon': epsilon,
    'turns': turns,
    'batch': batch,
    'length': length,
    'devices': [str(d) for d in jax.devices()],
  }
  with rich.progress.Progress(console=console, transient=True) as progress:
    for part in parts:
      if part == 'update':
        variants = make_updates(config, epsilon, rate, variant_names)
        report[part] = measure(variants, turns, progress)
      else:
        variants = make_steps(
          config, epsilon, rate, variant_names, batch, length
        )
        report[part] = measure(variants, max(1, turns // 2), progress)
      console.print(make_table(part, report[part]))
      del variants
  if path is not None:
    pathlib.Path(path).write_text(json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
  main()
