"""The demonstration: German number words → English, with a bundled seed."""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dst_t5x import delta as delta_lib
from dst_t5x import seeds
from dst_t5x.analysis import changes, plots
from dst_t5x.arrays import atomic
from dst_t5x.core import methods, plans
from dst_t5x.delta.file import container
from dst_t5x.standalone import data, evaluation, history, training
from dst_t5x.standalone.settings import TrainSettings
from dst_t5x.standalone.train_state import data_mesh, init_state, make_step

TASK = 'number_words'
FEATURE_LENGTHS = {'inputs': 128, 'targets': 128}
DECODE_LENGTH = 64


class QuickstartError(RuntimeError):
  """The demonstration did not do what it promises."""


class Report(NamedTuple):
  """What `report.json` holds.

  Attributes:
    exact_match_before: of the seed, percent of the held-out numbers.
    exact_match_after: of the adapted model, percent.
    examples: held-out numbers (count).
    params_total: parameters of the model (count).
    params_changed: those whose bits differ from the seed (count), counted
      between the seed's file and the seed with the delta's file applied.
    fraction_changed: their share.
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
    learning_rate: of the inner optimizer.
    steps: of training (count).
    method: its name.
    seconds: the whole demonstration.
    train_seconds: its training alone.
    delta: path of the delta.
    seed: path of the seed.
    seed_fingerprint: of the seed.
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


def run(
  out: str | os.PathLike[str],
  *,
  settings: TrainSettings,
  seed: seeds.Seed,
  say: Callable[[str], None],
  quiet: bool = False,
) -> Report:
  """Evaluates, fine-tunes, evaluates, and checks what lies on disk.

  Args:
    out: the run's directory.
    settings: of the training.
    seed: Θ⁰.
    say: told what happens now.
    quiet: show no progress.

  Returns:
    The report, which is also in the directory, with plots.

  Raises:
    ValueError: if the directory, the seed or a setting is wrong.
  """
  began = time.monotonic()
  # What is wrong with the settings shows before anything takes time.
  settings.check()
  plans.make(
    settings.method,
    seed.params,
    epsilon=settings.epsilon,
    budget=settings.budget,
    silo_scheme=settings.silos,
    total_steps=settings.train_steps,
  )
  inputs, targets = held_out()
  say(f'evaluating the seed on {len(inputs)} held-out numbers')
  config = training.network_config(seed)
  before = exact_match(_predict(config, seed.params, inputs), targets)
  say(f'the seed gets {before:.1f} %')
  train_began = time.monotonic()
  result = training.train(settings, seed=seed, out=out, quiet=quiet)
  train_seconds = time.monotonic() - train_began
  # From here on only files count: the seed's, and the delta's.
  say('applying the delta from disk')
  read = container.read(result.delta_path)
  adapted = delta_lib.apply(seed.params, read)
  predictions = _predict(config, adapted, inputs)
  after = exact_match(predictions, targets)
  say(f'the adapted model gets {after:.1f} %')
  say('predicting again in a new process')
  again = predict_in_new_process(seed.location, result.delta_path, inputs)
  say('timing a step of DST against one of full fine-tuning')
  selective_time, full_time = step_times(settings, seed)
  counted = changes.count_changes(
    seed.params, adapted, result.plan.silos, result.plan.budgets
  )
  report = Report(
    exact_match_before=before,
    exact_match_after=after,
    examples=len(inputs),
    params_total=counted.total,
    params_changed=counted.changed,
    fraction_changed=counted.changed / counted.total,
    budget=result.plan.budget,
    max_silo_overrun=counted.overrun,
    delta_bytes=result.delta_path.stat().st_size,
    dense_bytes=sum(np.asarray(x).nbytes for x in jax.tree.leaves(seed.params)),
    step_time_ratio=selective_time / full_time,
    step_seconds=selective_time,
    full_step_seconds=full_time,
    reload_predictions_equal=again == predictions,
    epsilon=float(settings.epsilon or 0.0),
    learning_rate=float(settings.schedule()(0)),
    steps=result.step,
    method=settings.method.name,
    seconds=time.monotonic() - began,
    train_seconds=train_seconds,
    delta=str(result.delta_path),
    seed=str(
      seeds.bundled_path() if seed.location == seeds.BUNDLED else seed.location
    ),
    seed_fingerprint=seed.fingerprint,
  )
  _write(result, report, seed.params, adapted)
  return report


def held_out() -> tuple[list[str], list[str]]:
  """Returns prompts and answers of numbers that training never sees.

  Returns:
    Inputs and targets, in the same order.
  """
  from dst_t5x.tasks import number_words

  return number_words.examples(TASK, 'validation')


def exact_match(predictions: Sequence[str], targets: Sequence[str]) -> float:
  """Returns the share of predictions that equal their target.

  Args:
    predictions: texts.
    targets: texts, as many.

  Returns:
    Percent.

  Example:
    >>> exact_match(['one', 'two'], ['one', 'ten'])
    50.0
  """
  hits = sum(p == t for p, t in zip(predictions, targets, strict=True))
  return 100.0 * hits / len(targets)


def predict_in_new_process(
  seed: str, delta: pathlib.Path, inputs: Sequence[str]
) -> list[str]:
  """Returns what `dst-t5x infer` prints in a process of its own.

  Args:
    seed: path of the seed, or 'bundled'.
    delta: path of the delta.
    inputs: prompts.

  Returns:
    The predictions.

  Raises:
    QuickstartError: if that process fails.
  """
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'dst_t5x.commands.cli',
      'infer',
      '--json',
      '--input',
      '-',
      '--seed',
      seed,
      '--delta',
      str(delta),
      '--inputs-length',
      str(DECODE_LENGTH),
      '--targets-length',
      str(DECODE_LENGTH),
      '--batch-size',
      '100',
    ],  # fmt: skip
    input='\n'.join(inputs) + '\n',
    capture_output=True,
    encoding='utf-8',
    check=False,
  )
  if done.returncode:
    raise QuickstartError(
      f'dst-t5x infer failed in a new process: {done.stderr.strip()[-2000:]}'
    )
  return [
    json.loads(line)['prediction'] for line in done.stdout.strip().split('\n')
  ]


def step_times(
  settings: TrainSettings, seed: seeds.Seed, *, repeats: int = 15
) -> tuple[float, float]:
  """Returns the median times of a step of the method and of full fine-tuning.

  Both are compiled and warmed up first, then they take turns on the same
  batch, so that whatever else the machine does meets both.

  Args:
    settings: of the run.
    seed: Θ⁰.
    repeats: steps timed of each (count).

  Returns:
    Seconds of the method's step and of the full one.
  """
  config = training.network_config(seed)
  mesh = data_mesh()
  batches = data.train_batches(
    settings.mixture_or_task_name,
    feature_lengths=settings.task_feature_lengths,
    batch_size=settings.batch_size,
    seed=settings.random_seed,
  )
  batch = next(batches)
  optimizer = settings.optimizer(settings.learning_rate)
  candidates = []
  for method, epsilon in (
    (settings.method, settings.epsilon),
    (methods.full(), None),
  ):
    plan = plans.make(
      method,
      seed.params,
      epsilon=epsilon,
      total_steps=settings.train_steps,
    )
    state = init_state(plan, optimizer, seed.params, mesh=mesh)
    step = make_step(config, plan, optimizer, mesh=mesh)
    for _ in range(3):
      state, _ = step(state, batch)
    jax.block_until_ready(state)
    candidates.append([step, state, []])
  for _ in range(repeats):
    for candidate in candidates:
      step, state, times = candidate
      start = time.perf_counter()
      candidate[1], _ = step(state, batch)
      jax.block_until_ready(candidate[1])
      times.append(time.perf_counter() - start)
  first, second = (statistics.median(c[2]) for c in candidates)
  return first, second


def _predict(config: Any, params: Any, inputs: Sequence[str]) -> list[str]:
  return evaluation.predict_texts(
    config,
    params,
    list(inputs),
    input_length=DECODE_LENGTH,
    max_decode_len=DECODE_LENGTH,
    batch_size=100,
  )


def _write(
  result: training.TrainResult, report: Report, seed: Any, adapted: Any
) -> None:
  rows = history.read(result.root)
  folder = result.root / 'plots'
  plots.learning_curve(folder / 'learning_curve.png', rows)
  plots.churn(folder / 'churn.png', rows, budget=report.budget)
  plots.module_shares(
    folder / 'module_shares.png', changes.share_per_module(seed, adapted)
  )
  text = json.dumps(report._asdict(), indent=2) + '\n'
  atomic.write_bytes(result.root / 'report.json', text.encode())
  atomic.write_bytes(result.root / 'report.md', markdown(report).encode())


def table_rows(report: Report) -> list[tuple[str, str]]:
  """Returns the report as label and value, for people.

  Args:
    report: see `Report`.

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
    report: see `Report`.

  Returns:
    The text.
  """
  lines = [
    f'# {TASK}: {report.method} at ε = {report.epsilon:g}',
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
