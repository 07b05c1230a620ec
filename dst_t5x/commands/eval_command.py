"""`dst-t5x eval`: scores of a seed, with or without a delta."""

import json
import pathlib
from typing import Any

import click

from dst_t5x.commands import common, task_setup


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
  help='Module that registers the task, if it is not one of ours.',
)
@click.option('--eval-file', help='TSV or JSON-lines file instead of a task.')
@click.option('--split', default='validation', show_default=True)
@click.option(
  '--examples', type=int, help='Evaluate only the first so many of each task.'
)
@task_setup.task_options
@click.option(
  '--beam-size',
  type=click.IntRange(min=1),
  help="Beams; 1 decodes greedily. The task's: 4 for wmt22, otherwise 1.",
)
@click.option('--batch-size', type=click.IntRange(min=1), default=64)
@click.option(
  '--out',
  metavar='DIR',
  help='Write scores.json and, by task, metrics and predictions.',
)
@click.option(
  '--submission',
  metavar='DIR',
  help="Write predictions in SuperGLUE's layout, and score nothing.",
)
@common.json_option
def evaluate(
  seed: str,
  delta: str | None,
  task: str | None,
  modules: tuple[str, ...],
  eval_file: str | None,
  split: str,
  examples: int | None,
  beam_size: int | None,
  batch_size: int,
  out: str | None,
  submission: str | None,
  as_json: bool,
  **options: Any,
) -> None:
  """Evaluate a seed on a task or a file, with or without a delta."""
  if (task is None) == (eval_file is None):
    raise click.UsageError('give either --task or --eval-file')
  if submission is not None and (out is not None or eval_file is not None):
    raise click.UsageError('--submission goes with --task, and without --out')
  from dst_t5x.commands import score_report
  from dst_t5x.standalone import evaluation as evaluate_lib
  from dst_t5x.standalone import task_lookup, text_files
  from dst_t5x.tasks import vocabularies

  common.import_modules(modules)
  task_settings = task_setup.prepare(
    task or '', task_setup.TaskOptions(**options)
  )
  if eval_file is not None:
    vocab = options['seed_vocab']
    task = text_files.register(
      None,
      eval_file,
      vocabulary=None if vocab is None else vocabularies.named(vocab),
    )
  assert task is not None
  features = task_lookup.find(task).output_features
  model = common.model(seed, delta)
  predict_fn = evaluate_lib.predictor(
    model.config,
    model.params,
    vocabulary=features['targets'].vocabulary,
    max_decode_len=task_settings.lengths['targets'],
    beam_size=beam_size or task_settings.beam_size,
  )
  settings: dict[str, Any] = {
    'feature_lengths': task_settings.lengths,
    'split': split,
    'num_examples': examples,
    'batch_size': batch_size,
  }
  if submission is not None:
    _submit(submission, task, predict_fn, settings)
    return
  found = evaluate_lib.evaluate_with_notes(
    task, predict_fn, output_dir=out, **settings
  )
  report = json.dumps(score_report.as_dict(found), indent=2)
  if out is not None:
    (pathlib.Path(out) / 'scores.json').write_text(f'{report}\n')
  if as_json:
    click.echo(report)
  else:
    score_report.show(found)


def _submit(
  directory: str, task: str, predict_fn: Any, settings: dict[str, Any]
) -> None:
  from dst_t5x.standalone import task_prediction
  from dst_t5x.tasks import submission

  outputs = task_prediction.predict_task(task, predict_fn, **settings)
  for written in submission.write(directory, outputs).values():
    click.echo(
      f'{written.path}: {written.lines} lines'
      + (f', {written.invalid} invalid' if written.invalid else '')
    )
