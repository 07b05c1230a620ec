"""`dst-t5x eval`: scores of a seed, with or without a delta."""

import json

import click
import rich.box
import rich.console
import rich.table

from dst_t5x.commands import common


@click.command('eval')
@common.seed_option
@common.delta_option
@click.option(
  '--task', '--mixture', 'task', metavar='NAME', help='seqio task or mixture.'
)
@click.option(
  '--import',
  'modules',
  multiple=True,
  metavar='MODULE',
  help='Module that registers the task; may be repeated.',
)
@click.option('--eval-file', help='TSV or JSON-lines file instead of a task.')
@click.option('--split', default='validation', show_default=True)
@click.option('--examples', type=int, help='Evaluate only the first so many.')
@click.option('--inputs-length', type=int, default=256, show_default=True)
@click.option('--targets-length', type=int, default=256, show_default=True)
@common.beam_option
@common.json_option
def evaluate(
  seed: str,
  delta: str | None,
  task: str | None,
  modules: tuple[str, ...],
  eval_file: str | None,
  split: str,
  examples: int | None,
  inputs_length: int,
  targets_length: int,
  beam_size: int,
  as_json: bool,
) -> None:
  """Evaluate a seed on a task or a file, with or without a delta."""
  if (task is None) == (eval_file is None):
    raise click.UsageError('give either --task or --eval-file')
  from dst_t5x.standalone import evaluate as evaluate_lib
  from dst_t5x.standalone import text_files

  common.import_modules(modules)
  if eval_file is not None:
    task = text_files.register(None, eval_file)
  assert task is not None
  model = common.model(seed, delta)
  scores = evaluate_lib.evaluate_params(
    task,
    model.config,
    model.params,
    feature_lengths={'inputs': inputs_length, 'targets': targets_length},
    split=split,
    num_examples=examples,
    beam_size=beam_size,
  )
  if as_json:
    click.echo(json.dumps(scores, indent=2))
    return
  table = rich.table.Table(box=rich.box.SIMPLE)
  for name in ('task', 'metric', 'score'):
    table.add_column(name, justify='right' if name == 'score' else 'left')
  for name, metrics in scores.items():
    for metric, value in metrics.items():
      table.add_row(name, metric, f'{value:.2f}')
  rich.console.Console().print(table)
