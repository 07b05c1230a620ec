"""Exact match on number_words over subset sizes and learning rates.

  python benchmarks/number_words_sweep.py --json sweep.json

The paper publishes no learning rate for DST, only that it must grow as ε falls
(its figure 9). This trains the bundled seed for every pair of both and prints a
table; each pair takes some minutes on two cores.
"""

import json
import pathlib
import tempfile

import click
import optax
import rich.box
import rich.console
import rich.table

from dst_t5x import seeds
from dst_t5x.arrays import atomic
from dst_t5x.core import methods
from dst_t5x.standalone import evaluation, optimizers, training
from dst_t5x.standalone.demonstration import held_out_numbers
from dst_t5x.standalone.seed_network import network_config
from dst_t5x.standalone.settings import TrainSettings
from dst_t5x.tasks import number_words

# Fraction of free parameters → learning rates.
GRID = {1e-2: (0.03, 0.1), 1e-3: (0.1, 0.3, 1.0), 1e-4: (0.3, 1.0)}


def train_and_score(
  epsilon: float, rate: float, steps: int, run_dir: pathlib.Path
):
  """Returns exact match on the held-out numbers (percent), and the budget."""
  settings = TrainSettings(
    method=methods.dst(),
    mixture_or_task_name=held_out_numbers.TASK,
    task_feature_lengths=held_out_numbers.FEATURE_LENGTHS,
    train_steps=steps,
    batch_size=16,
    learning_rate=optax.linear_schedule(rate, rate / 20, steps),
    optimizer=optimizers.adafactor,
    epsilon=epsilon,
    checkpoint_period=steps,
  )
  seed = seeds.read('bundled')
  result = training.train(settings, seed=seed, out=run_dir)
  scores = evaluation.evaluate_params(
    held_out_numbers.TASK,
    network_config(seed),
    result.params,
    feature_lengths={'inputs': 64, 'targets': 64},
  )
  return scores[held_out_numbers.TASK]['exact_match'], result.plan.budget


@click.command()
@click.option(
  '--steps', default=800, show_default=True, help='Steps of each run.'
)
@click.option('--json', 'path', type=click.Path(), help='Write JSON here.')
def main(steps: int, path: str | None) -> None:
  """Fine-tunes the bundled seed for every ε and rate, one after another."""
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    for epsilon, rates in GRID.items():
      for rate in rates:
        run_dir = pathlib.Path(folder, f'{epsilon:g}-{rate:g}')
        score, budget = train_and_score(epsilon, rate, steps, run_dir)
        rows.append({
          'epsilon': epsilon, 'rate': rate, 'steps': steps,
          'budget': budget, 'exact_match': score,
          'examples': number_words.HELD_OUT,
        })  # fmt: skip
        if path is not None:
          text = json.dumps(rows, indent=2) + '\n'
          atomic.write_bytes(path, text.encode())
  table = rich.table.Table(box=rich.box.MARKDOWN)
  for name in ('ε', 'parameters', 'rate', 'exact match'):
    table.add_column(name, justify='right')
  for row in rows:
    table.add_row(
      f'{row["epsilon"]:g}',
      f'{row["budget"]:,}',
      f'{row["rate"]:g}',
      f'{row["exact_match"]:.1f} %',
    )
  rich.console.Console().print(table)


if __name__ == '__main__':
  main()
