"""The report of the demonstration: JSON, Markdown, a table, plots."""

import json
import pathlib
from typing import Any, NamedTuple

from dst_t5x.analysis import changes, history, plots
from dst_t5x.arrays import atomic
from dst_t5x.standalone.demonstration import held_out_numbers


class Report(NamedTuple):
  """What `report.json` holds.

  Attributes:
    exact_match_before: percent of the held-out numbers that the seed answers
      correctly.
    exact_match_after: the same of the adapted model, percent.
    examples: held-out numbers (count).
    params_total: parameters of the model (count).
    params_changed: those whose bits differ from the seed (count), counted
      between the seed's file and the seed with the delta's file applied.
    fraction_changed: their share of all parameters (fraction).
    budget: how many may differ (count).
    max_silo_overrun: by how much the worst silo exceeds its own (count).
    delta_bytes: size of the delta's file.
    dense_bytes: size of all parameters.
    step_time_ratio: median step of DST over that of full fine-tuning.
    step_seconds: median step of DST.
    full_step_seconds: median step of full fine-tuning.
    reload_predictions_equal: whether a new process that applies the delta to
      the seed predicts the same.
    epsilon: fraction of free parameters.
    learning_rate: rate of the inner optimizer at the first step.
    steps: steps of training (count).
    method: name of the method.
    seconds: time of the whole demonstration (seconds).
    train_seconds: time of its training alone (seconds).
    delta: path of the delta.
    seed: path of the seed.
    seed_fingerprint: fingerprint of the seed.
  """

  exact_match_before: float
  exact_match_after: float
  examples: int
  params_total: int
  params_changed: int
  fraction_changed: float
  budget: int
  max_silo_overrun: int
  delta_bytes: int
  dense_bytes: int
  step_time_ratio: float
  step_seconds: float
  full_step_seconds: float
  reload_predictions_equal: bool
  epsilon: float
  learning_rate: float
  steps: int
  method: str
  seconds: float
  train_seconds: float
  delta: str
  seed: str
  seed_fingerprint: str


def write(
  root: pathlib.Path, report: Report, *, seed: Any, adapted: Any
) -> None:
  """Writes `report.json`, `report.md` and the plots that it shows.

  Args:
    root: the run's directory, which holds its history.
    report: what the demonstration measured.
    seed: parameters before the run, on the host.
    adapted: parameters after it.
  """
  rows = history.read(root)
  folder = root / 'plots'
  plots.learning_curve(folder / 'learning_curve.png', rows)
  plots.churn(folder / 'churn.png', rows, budget=report.budget)
  plots.module_shares(
    folder / 'module_shares.png', changes.share_per_module(seed, adapted)
  )
  text = json.dumps(report._asdict(), indent=2) + '\n'
  atomic.write_bytes(root / 'report.json', text.encode())
  atomic.write_bytes(root / 'report.md', markdown(report).encode())


def table_rows(report: Report) -> list[tuple[str, str]]:
  """Returns the report as label and value, for people.

  Args:
    report: what the demonstration measured.

  Returns:
    Rows in reading order.
  """
  equal = 'equal' if report.reload_predictions_equal else 'DIFFERENT'
  return [
    ('exact match before', f'{report.exact_match_before:.1f} %'),
    ('exact match after', f'{report.exact_match_after:.1f} %'),
    (
      'parameters changed',
      f'{report.params_changed:,} of {report.params_total:,} '
      f'({100 * report.fraction_changed:.2f} %)',
    ),
    ('budget', f'{report.budget:,}'),
    ('largest silo overrun', f'{report.max_silo_overrun}'),
    (
      'delta / dense bytes',
      f'{report.delta_bytes:,} / {report.dense_bytes:,} '
      f'({100 * report.delta_bytes / report.dense_bytes:.1f} %)',
    ),
    (
      'step, DST / full fine-tuning',
      f'{report.step_seconds * 1e3:.0f} / '
      f'{report.full_step_seconds * 1e3:.0f} ms ({report.step_time_ratio:.2f})',
    ),
    ('predictions in a new process', equal),
    ('seconds', f'{report.seconds:.0f}'),
  ]


def markdown(report: Report) -> str:
  """Returns the report as Markdown, with its plots.

  Args:
    report: what the demonstration measured.

  Returns:
    The text.
  """
  lines = [
    f'# {held_out_numbers.TASK}: {report.method} at ε = {report.epsilon:g}',
    '',
    '| | |',
    '|---|---|',
    *(f'| {label} | {value} |' for label, value in table_rows(report)),
    '',
    f'{report.steps} steps at a learning rate of {report.learning_rate:g} '
    '(not published; ours, measured on this task).',
    f'Seed: `{report.seed}` ({report.seed_fingerprint}).',
    f'Delta: `{report.delta}`.',
    '',
    '![Learning curve](plots/learning_curve.png)',
    '![Churn](plots/churn.png)',
    '![Free parameters per module](plots/module_shares.png)',
  ]
  return '\n'.join(lines) + '\n'
