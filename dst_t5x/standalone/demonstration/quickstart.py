"""The whole way from a seed to a checked delta.

Evaluates the seed, fine-tunes it, and checks what lies on disk: the delta's
file alone must give the adapted model, here and in a new process.
"""

import os
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from dst_t5x import delta as delta_lib
from dst_t5x import seeds
from dst_t5x.analysis import changes
from dst_t5x.core import plans
from dst_t5x.delta.file import container
from dst_t5x.standalone import training
from dst_t5x.standalone.demonstration import (
  fresh_process,
  held_out_numbers,
  quickstart_report,
)
from dst_t5x.standalone.demonstration.quickstart_report import Report
from dst_t5x.standalone.demonstration.step_times import StepTimes, step_times
from dst_t5x.standalone.seed_network import network_config
from dst_t5x.standalone.settings import TrainSettings


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
    settings: settings of the training.
    seed: Θ⁰.
    say: called with a sentence about what happens now.
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
  inputs, targets = held_out_numbers.examples()
  say(f'evaluating the seed on {len(inputs)} held-out numbers')
  config = network_config(seed)
  seed_predictions = held_out_numbers.predict(config, seed.params, inputs)
  before = held_out_numbers.exact_match(seed_predictions, targets)
  say(f'the seed gets {before:.1f} %')
  train_began = time.monotonic()
  result = training.train(settings, seed=seed, out=out, quiet=quiet)
  train_seconds = time.monotonic() - train_began
  # From here on only files count: the seed's, and the delta's.
  say('applying the delta from disk')
  adapted = delta_lib.apply(seed.params, container.read(result.delta_path))
  predictions = held_out_numbers.predict(config, adapted, inputs)
  after = held_out_numbers.exact_match(predictions, targets)
  say(f'the adapted model gets {after:.1f} %')
  say('predicting again in a new process')
  predictions_again = fresh_process.predict(
    inputs,
    seed=seed.location,
    delta=result.delta_path,
    max_tokens=held_out_numbers.DECODE_LENGTH,
    batch_size=held_out_numbers.BATCH_SIZE,
  )
  say('timing a step of DST against one of full fine-tuning')
  times = step_times(settings, seed)
  report = _report(
    settings,
    seed,
    result,
    changes.count_changes(
      seed.params, adapted, result.plan.silos, result.plan.budgets
    ),
    _Findings(
      exact_match_before=before,
      exact_match_after=after,
      examples=len(inputs),
      reload_predictions_equal=predictions_again == predictions,
      times=times,
      train_seconds=train_seconds,
      seconds=time.monotonic() - began,
    ),
  )
  quickstart_report.write(
    result.root, report, seed=seed.params, adapted=adapted
  )
  return report


class _Findings(NamedTuple):
  """What only the demonstration measures; see `Report` for the meanings."""

  exact_match_before: float
  exact_match_after: float
  examples: int
  reload_predictions_equal: bool
  times: StepTimes
  train_seconds: float
  seconds: float


def _report(
  settings: TrainSettings,
  seed: seeds.Seed,
  result: training.TrainResult,
  counted: changes.Changes,
  findings: _Findings,
) -> Report:
  times = findings.times
  bundled = seed.location == seeds.BUNDLED
  return Report(
    exact_match_before=findings.exact_match_before,
    exact_match_after=findings.exact_match_after,
    examples=findings.examples,
    params_total=counted.total,
    params_changed=counted.changed,
    fraction_changed=counted.changed / counted.total,
    budget=result.plan.budget,
    max_silo_overrun=counted.overrun,
    delta_bytes=result.delta_path.stat().st_size,
    dense_bytes=sum(np.asarray(x).nbytes for x in jax.tree.leaves(seed.params)),
    step_time_ratio=times.method / times.full,
    step_seconds=times.method,
    full_step_seconds=times.full,
    reload_predictions_equal=findings.reload_predictions_equal,
    epsilon=float(settings.epsilon or 0.0),
    learning_rate=float(settings.schedule()(0)),
    steps=result.step,
    method=settings.method.name,
    seconds=findings.seconds,
    train_seconds=findings.train_seconds,
    delta=str(result.delta_path),
    seed=str(seeds.bundled_path() if bundled else seed.location),
    seed_fingerprint=seed.fingerprint,
  )
