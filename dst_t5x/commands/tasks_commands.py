"""`dst-t5x tasks`: which tasks there are, and what a model will see of one."""

import itertools
import json
from typing import Any, NamedTuple

import click
import rich.box
import rich.console
import rich.table

from dst_t5x.commands import common, task_setup


class Lengths(NamedTuple):
  """How long the texts of one feature are.

  Attributes:
    rows: that were measured (count).
    mean: tokens, EOS included.
    longest: tokens (count).
    limit: tokens that fit (count).
    cut: rows that do not fit (count).
  """

  rows: int
  mean: float
  longest: int
  limit: int
  cut: int


@click.group()
def tasks() -> None:
  """List tasks, or show what the model will see."""


@tasks.command('list')
@common.json_option
def list_tasks(as_json: bool) -> None:
  """List the tasks and mixtures of this package."""
  task_setup.import_all()
  rows = _rows()
  if as_json:
    click.echo(json.dumps(rows, indent=2))
    return
  console = rich.console.Console()
  for file, group in itertools.groupby(rows, lambda row: row['gin_file']):
    table = rich.table.Table('name', 'splits', 'metrics', box=rich.box.SIMPLE)
    table.columns[0].no_wrap = True
    for row in group:
      scored = ' '.join(row['metrics']) or '–'
      if row['tasks']:
        scored = f'mixture of {len(row["tasks"])} tasks'
      table.add_row(row['name'], ' '.join(row['splits']), scored)
    console.print(file, style='bold')
    console.print(table)


@tasks.command()
@click.argument('name')
@click.option('--split', default='validation', show_default=True)
@click.option(
  '-n',
  'count',
  type=click.IntRange(min=0),
  default=3,
  show_default=True,
  help='Examples shown.',
)
@click.option(
  '--measure',
  type=click.IntRange(min=1),
  default=1000,
  show_default=True,
  help='Examples measured, from the first.',
)
@click.option(
  '--import',
  'modules',
  multiple=True,
  metavar='MODULE',
  help='Module that registers the task, if it is not one of ours.',
)
@task_setup.task_options
@common.json_option
def show(
  name: str,
  split: str,
  count: int,
  measure: int,
  modules: tuple[str, ...],
  as_json: bool,
  **options: Any,
) -> None:
  """Show examples of a task as the model sees them, and how many are cut."""
  common.import_modules(modules)
  settings = task_setup.prepare(name, task_setup.TaskOptions(**options))
  from dst_t5x.standalone import task_lookup

  limits = task_lookup.check_lengths(name, settings.lengths)
  report = {
    task.name: _report(task, split, limits, count, max(count, measure))
    for task in task_lookup.subtasks(name, split=split)
  }
  if as_json:
    click.echo(json.dumps(report, indent=2, ensure_ascii=False))
    return
  for task, found in report.items():
    _print(task, split, found)


def _rows() -> list[dict[str, Any]]:
  import seqio

  rows = []
  names = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
  for name in sorted(names):
    file = task_setup.gin_file(name)
    if file is None:
      continue
    found: Any = seqio.get_mixture_or_task(name)
    mixture = isinstance(found, seqio.Mixture)
    metrics = [] if mixture else [fn.__name__ for fn in found.metric_fns]
    rows.append(
      {
        'name': name,
        'splits': sorted(map(str, found.splits)),
        'metrics': metrics,
        'tasks': [task.name for task in found.tasks] if mixture else [],
        'gin_file': file,
      }
    )
  return sorted(rows, key=lambda row: row['gin_file'])


def _report(
  task: Any, split: str, limits: dict[str, int], count: int, measure: int
) -> dict[str, Any]:
  """Returns examples and lengths of a task's first `measure` rows."""
  from dst_t5x.standalone.task_lookup import DataError

  dataset = task.get_dataset(None, split=split, shuffle=False)
  examples, tokens = [], {feature: [] for feature in limits}
  for row in itertools.islice(dataset.as_numpy_iterator(), measure):
    for feature in limits:
      tokens[feature].append(len(row[feature]))
    if len(examples) < count:
      examples.append(_example(task, row, limits))
  if not tokens['inputs']:
    raise DataError(f'task {task.name!r} has no example in split {split!r}')
  return {
    'examples': examples,
    'lengths': {
      feature: _lengths(counts, limits[feature])._asdict()
      for feature, counts in tokens.items()
    },
  }


def _example(task: Any, row: Any, limits: dict[str, int]) -> dict[str, Any]:
  shown = {}
  for feature, limit in limits.items():
    ids = row[feature].tolist()
    vocabulary = task.output_features[feature].vocabulary
    # As T5 cuts: the last token that fits is EOS all the same.
    kept = ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]
    shown[feature] = vocabulary.decode(kept)
    shown[f'{feature}_tokens'] = len(ids)
  return shown


def _lengths(counts: list[int], limit: int) -> Lengths:
  return Lengths(
    rows=len(counts),
    mean=round(sum(counts) / len(counts), 1),
    longest=max(counts),
    limit=limit,
    cut=sum(count > limit for count in counts),
  )


def _print(task: str, split: str, found: dict[str, Any]) -> None:
  console = rich.console.Console()
  console.print(f'{task}, {split}', style='bold')
  for example in found['examples']:
    for feature in ('inputs', 'targets'):
      head = f'  {feature} ({example[f"{feature}_tokens"]} tokens): '
      console.print(
        head + example[feature], markup=False, highlight=False, soft_wrap=True
      )
  for feature, lengths in found['lengths'].items():
    share = 100 * lengths['cut'] / lengths['rows']
    console.print(
      f'  {feature}: of {lengths["rows"]} rows, {lengths["mean"]} tokens on '
      f'average, {lengths["longest"]} at most; {lengths["cut"]} '
      f'({share:.1f} %) are cut at {lengths["limit"]}',
      highlight=False,
      soft_wrap=True,
    )
