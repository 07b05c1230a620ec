"""What an evaluation found, as a table, as JSON, beside published numbers."""

from typing import Any

import rich.box
import rich.console
import rich.table

from dst_t5x.standalone.evaluation import Evaluation


def as_dict(found: Evaluation) -> dict[str, Any]:
  """Returns an evaluation for JSON, with its average and published ones.

  Args:
    found: scores and notes by task.

  Returns:
    'scores' and 'notes' by task; 'average', None for a single task;
    'published', averages by model.

  Example:
    >>> found = Evaluation({'number_words': {'exact_match': 50.0}}, {})
    >>> as_dict(found)['scores'], as_dict(found)['average']
    ({'number_words': {'exact_match': 50.0}}, None)
  """
  from dst_t5x.tasks import benchmarks

  average = benchmarks.average(found.scores)
  return {
    'scores': found.scores,
    'notes': {task: notes for task, notes in found.notes.items() if notes},
    'average': None if average is None else average._asdict(),
    'published': dict(benchmarks.published(found.scores)),
  }


def show(found: Evaluation) -> None:
  """Prints an evaluation as a table.

  Args:
    found: scores and notes by task.
  """
  report = as_dict(found)
  table = rich.table.Table(box=rich.box.SIMPLE)
  for name in ('task', 'metric', 'score'):
    table.add_column(name, justify='right' if name == 'score' else 'left')
  for task, metrics in report['scores'].items():
    for metric, value in metrics.items():
      table.add_row(task, metric, f'{value:.2f}')
  average = report['average']
  if average is not None:
    table.add_section()
    what = f'of {average["tasks"]} tasks'
    if average['tasks'] < average['of']:
      what = f'of {average["tasks"]} of {average["of"]} tasks'
    table.add_row('average', what, f'{average["value"]:.2f}')
  for model, value in report['published'].items():
    table.add_row(f'{model}, DST table 4', 'average', f'{value:.1f}')
  console = rich.console.Console()
  console.print(table)
  for task, notes in report['notes'].items():
    for name, note in notes.items():
      console.print(f'{task} {name}: {note}', markup=False, soft_wrap=True)
  if report['published']:
    console.print(
      'Published: full fine-tuning; the split is not stated.', soft_wrap=True
    )
