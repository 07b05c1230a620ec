"""The scores of an evaluation: as a table, as JSON, beside published ones."""

from typing import Any

import rich.box
import rich.console
import rich.table

from dst_t5x.standalone.evaluation import Evaluation


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
  """Returns scores for JSON, with their average and published averages.

  Args:
    evaluation: scores and notes by task.

  Returns:
    'scores': task → metric → value, and 'notes', likewise; 'average': 'value',
    'tasks', the number of tasks in it, and 'of', the number that there are
    (None for a single task); 'published': model → average in percent.

  Example:
    >>> evaluation = Evaluation({'number_words': {'exact_match': 50.0}}, {})
    >>> as_dict(evaluation)['scores'], as_dict(evaluation)['average']
    ({'number_words': {'exact_match': 50.0}}, None)
  """
  from dst_t5x.tasks import averages

  average = averages.average(evaluation.scores)
  notes = {task: texts for task, texts in evaluation.notes.items() if texts}
  return {
    'scores': evaluation.scores,
    'notes': notes,
    'average': None
    if average is None
    else {
      'value': average.value,
      'tasks': average.tasks,
      'of': average.all_tasks,
    },
    'published': dict(averages.published(evaluation.scores)),
  }


def show(evaluation: Evaluation) -> None:
  """Prints scores as a table, and the notes below it.

  Args:
    evaluation: scores and notes by task.
  """
  report = as_dict(evaluation)
  console = rich.console.Console()
  console.print(_table(report))
  for task, notes in report['notes'].items():
    for name, note in notes.items():
      console.print(f'{task} {name}: {note}', markup=False, soft_wrap=True)
  if report['published']:
    console.print(
      'Published: full fine-tuning; the split is not stated.', soft_wrap=True
    )


def _table(report: dict[str, Any]) -> rich.table.Table:
  table = rich.table.Table(box=rich.box.SIMPLE)
  for name in ('task', 'metric', 'score'):
    table.add_column(name, justify='right' if name == 'score' else 'left')
  for task, metrics in report['scores'].items():
    for metric, value in metrics.items():
      table.add_row(task, metric, f'{value:.2f}')
  average = report['average']
  if average is not None:
    table.add_section()
    tasks = f'{average["tasks"]} tasks'
    if average['tasks'] < average['of']:
      tasks = f'{average["tasks"]} of {average["of"]} tasks'
    table.add_row('average', f'of {tasks}', f'{average["value"]:.2f}')
  for model, value in report['published'].items():
    table.add_row(f'{model}, DST table 4', 'average', f'{value:.1f}')
  return table
