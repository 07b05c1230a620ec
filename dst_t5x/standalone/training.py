"""Fine-tunes a seed on one machine and leaves a delta.

The loop: batch → step → now and then a row of history, an evaluation, a
checkpoint. Whatever stops it, at most the steps since the last checkpoint are
lost, and a run that is started again goes on from there to the same bits.
"""

import errno
import math
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from dst_t5x import delta as delta_lib
from dst_t5x import seeds
from dst_t5x.arrays import atomic
from dst_t5x.core import plans, selective
from dst_t5x.delta import SubsetDelta
from dst_t5x.delta.file import container
from dst_t5x.delta.types import NonFiniteValueError
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.network.transformer import param_shapes
from dst_t5x.standalone import data, evaluation, run_checkpoints, run_dir
from dst_t5x.standalone.history import History
from dst_t5x.standalone.interrupts import Interrupted, stop_requests
from dst_t5x.standalone.progress import TrainProgress
from dst_t5x.standalone.quiet_tensorflow import metric_writers
from dst_t5x.standalone.settings import TrainSettings, describe
from dst_t5x.standalone.train_state import (
  TrainState,
  data_mesh,
  init_state,
  make_step,
  replicated_partitioning,
)


class NonFiniteLossError(ValueError):
  """The loss, or a parameter, became NaN or infinite."""


class TrainResult(NamedTuple):
  """What a run leaves.

  Attributes:
    root: its directory.
    step: steps taken (count).
    params: Θ, on the host.
    delta: against the seed.
    delta_path: where it lies.
    plan: silos and budgets.
    scores: last evaluation, metric by task; empty if there was none.
    checkpoint_sizes: bytes of the last checkpoint's parts.
  """

  root: pathlib.Path
  step: int
  params: Any
  delta: SubsetDelta
  delta_path: pathlib.Path
  plan: plans.Plan
  scores: dict[str, dict[str, float]]
  checkpoint_sizes: run_checkpoints.Sizes


def network_config(
  seed: seeds.Seed, config: NetworkConfig | None = None
) -> NetworkConfig:
  """Returns the network that a seed belongs to, checked against its tensors.

  Args:
    seed: the seed.
    config: needed if the seed's file does not say; must agree if it does.

  Returns:
    The config.

  Raises:
    SeedError: if the seed's tensors are not those of the network.
    ValueError: if neither the seed nor the caller names a network, or they
      disagree.
  """
  own = None if seed.config is None else NetworkConfig.from_dict(seed.config)
  if config is not None and own is not None:
    mine, theirs = config.to_dict(), own.to_dict()
    differ = [
      f'{name}: {theirs[name]!r} in the seed, {mine[name]!r} named'
      for name in mine
      # How a network is run is not what its tensors are.
      if name not in ('dropout_rate', 'dtype') and mine[name] != theirs[name]
    ]
    if differ:
      raise ValueError(
        f'seed {seed.location!r} belongs to another network: '
        + '; '.join(differ)
      )
  found = config or own
  if found is None:
    raise ValueError(
      f'seed {seed.location!r} does not say what network it belongs to; name '
      'one, for instance --gin_file=models/t5_1_1_small.gin'
    )
  seeds.check_params(
    seed.params, param_shapes(found), origin=f'seed {seed.location!r}'
  )
  return found


def train(
  settings: TrainSettings,
  *,
  seed: seeds.Seed,
  out: str | os.PathLike[str],
  config: NetworkConfig | None = None,
  quiet: bool = False,
  on_step: Callable[[int], None] | None = None,
) -> TrainResult:
  """Fine-tunes a seed; resumes if the directory holds this very run.

  Args:
    settings: what to do.
    seed: Θ⁰.
    out: the run's directory.
    config: of the network, if the seed does not carry it.
    quiet: show no progress.
    on_step: called with the number of steps taken after each of them.

  Returns:
    What the run leaves.

  Raises:
    ValueError: if a setting, the seed, the data or the directory is wrong.
    NonFiniteLossError: if the loss, or NonFiniteScoreError, if a score is not
      finite; nothing of that state is saved.
    Interrupted: after Ctrl-C or SIGTERM, with the state saved.
    OSError: if a checkpoint cannot be written; older ones are untouched.
  """
  settings.check()
  config = network_config(seed, config).with_dropout(settings.dropout_rate)
  mesh = data_mesh()
  if settings.batch_size % mesh.size:
    raise ValueError(
      f'batch_size={settings.batch_size} must be divisible by the number of '
      f'devices, {mesh.size}'
    )
  plan = plans.make(
    settings.method,
    seed.params,
    epsilon=settings.epsilon,
    budget=settings.budget,
    silo_scheme=settings.silos,
    total_steps=settings.train_steps,
    partitioning=replicated_partitioning(mesh, seed.params),
  )
  batches = data.train_batches(
    settings.mixture_or_task_name,
    feature_lengths=settings.task_feature_lengths,
    batch_size=settings.batch_size,
    seed=settings.random_seed,
    pack=settings.pack,
    use_cached=settings.use_cached,
  )
  with run_dir.lock(out):
    root = run_dir.claim(
      out,
      {
        **settings.identity(),
        'seed_fingerprint': seed.fingerprint,
        'network': describe(config.to_dict()),
      },
    )
    return _run(
      settings, seed, root, config, plan, mesh, batches, quiet, on_step
    )


def _run(
  settings: TrainSettings,
  seed: seeds.Seed,
  root: pathlib.Path,
  config: NetworkConfig,
  plan: plans.Plan,
  mesh: jax.sharding.Mesh,
  batches: data.TrainBatches,
  quiet: bool,
  on_step: Callable[[int], None] | None,
) -> TrainResult:
  schedule = settings.schedule()
  optimizer = settings.optimizer(settings.learning_rate)
  state = init_state(
    plan,
    optimizer,
    seed.params,
    mesh=mesh,
    random_seed=settings.random_seed,
  )
  saver = _Saver(settings, seed, root, plan, batches)
  start, state = saver.newest(state)
  step_fn = make_step(
    config,
    plan,
    optimizer,
    mesh=mesh,
    z_loss=settings.z_loss,
    label_smoothing=settings.label_smoothing,
    dropout_seed=settings.random_seed,
  )
  history = History(root, resumed_at=start)
  writer = metric_writers.SummaryWriter(str(root / 'tensorboard'))
  split = NamedSharding(mesh, PartitionSpec('data'))
  scores: dict[str, dict[str, float]] = {}
  last_time, last_step = time.monotonic(), start
  with (
    TrainProgress(
      total=settings.train_steps, start=start, quiet=quiet
    ) as progress,
    stop_requests() as stop,
  ):
    if start:
      progress.note(f'resumed {str(root)!r} at step {start}')
    for step in range(start + 1, settings.train_steps + 1):
      batch = jax.device_put(next(batches), split)
      state, metrics = step_fn(state, batch)
      progress.advance(step)
      final = step == settings.train_steps
      if final or step % settings.log_period == 0:
        loss = float(metrics.loss)
        _check_finite(loss, step, plan, state, saver)
        now = time.monotonic()
        row = {
          'loss': loss,
          'accuracy': float(metrics.accuracy),
          'gradient_norm': float(metrics.gradient_norm),
          'learning_rate': float(schedule(step - 1)),
          'subset_size': _subset_size(plan, state),
          'churn': int(state.selective.metrics.churn),
          'passes': int(state.selective.metrics.passes),
          'steps_per_second': (step - last_step) / max(now - last_time, 1e-9),
        }
        last_time, last_step = now, step
        history.add('train', step, row)
        writer.write_scalars(step, {f'train/{k}': v for k, v in row.items()})
        progress.show(
          step,
          loss=loss,
          learning_rate=row['learning_rate'],
          subset=row['subset_size'],
          churn=row['churn'],
          steps_per_second=row['steps_per_second'],
        )
      if stop and not final:
        _check_finite(float(metrics.loss), step, plan, state, saver)
        saver.save(step, state)
        raise Interrupted(
          f'stopped by {stop.signal_name} after step {step} of '
          f'{settings.train_steps}; the state is saved in {str(root)!r}: run '
          'the same command again to go on'
        )
      if final or step % settings.checkpoint_period == 0:
        _check_finite(float(metrics.loss), step, plan, state, saver)
        saver.save(step, state)
      if settings.eval_period and step % settings.eval_period == 0:
        scores = _evaluate(settings, config, state, step, history, writer)
        progress.note(f'step {step}: {_scores_line(scores)}')
        last_time, last_step = time.monotonic(), step
      if on_step is not None:
        on_step(step)
  writer.flush()
  step = max(start, settings.train_steps)
  delta, params = saver.delta(step, state)
  delta_path = root / run_checkpoints.DELTA
  container.write(delta, delta_path)
  return TrainResult(
    root=root,
    step=step,
    params=params,
    delta=delta,
    delta_path=delta_path,
    plan=plan,
    scores=scores,
    checkpoint_sizes=saver.sizes(),
  )


class _Saver:
  """Writes and reads the checkpoints of one run."""

  def __init__(
    self,
    settings: TrainSettings,
    seed: seeds.Seed,
    root: pathlib.Path,
    plan: plans.Plan,
    batches: data.TrainBatches,
  ):
    self._settings = settings
    self._seed = seed
    self._root = root
    self._plan = plan
    self._batches = batches
    self._made: tuple[int, SubsetDelta, Any] | None = None

  def newest(self, state: TrainState) -> tuple[int, TrainState]:
    atomic.remove_leftovers(self._root / run_checkpoints.FOLDER)
    found = run_checkpoints.steps(self._root)
    if not found:
      return 0, state
    step = found[-1]
    if step > self._settings.train_steps:
      raise run_dir.RunDirError(
        f'{str(self._root)!r} has already taken {step} steps, more than '
        f'train_steps={self._settings.train_steps}'
      )
    return step, run_checkpoints.restore(
      self._root,
      step,
      state,
      seed_fingerprint=self._seed.fingerprint,
      restore_dataset=self._batches.restore,
    )

  def delta(self, step: int, state: TrainState) -> tuple[SubsetDelta, Any]:
    # The last checkpoint and the run's result are of the same step.
    if self._made is not None and self._made[0] == step:
      return self._made[1:]
    params = jax.device_get(state.params)
    plan = self._plan
    delta = delta_lib.diff(
      self._seed.params,
      params,
      method=plan.method.name,
      epsilon=self._settings.epsilon,
      budget=plan.budget,
      silo_rule=_silo_rule(self._settings),
      step=step,
    )
    self._made = (step, delta, params)
    return delta, params

  def save(self, step: int, state: TrainState) -> None:
    try:
      delta, _ = self.delta(step, state)
    except NonFiniteValueError as error:
      raise NonFiniteLossError(
        f'after step {step}: {error}; {self.last()}. Lower the learning rate '
        'or clip the gradients'
      ) from error
    try:
      run_checkpoints.save(
        self._root,
        step,
        state,
        delta,
        seed_location=self._seed.location,
        save_dataset=self._batches.save,
        keep=self._settings.keep,
      )
    except OSError as error:
      if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise
      raise OSError(
        error.errno,
        f'no space left for the checkpoint of step {step} in '
        f'{str(self._root)!r}; {self.last()}. Free some space and run the '
        'same command again',
      ) from error

  def last(self) -> str:
    found = run_checkpoints.steps(self._root)
    if not found:
      return 'there is no earlier checkpoint'
    return f'the last good checkpoint is of step {found[-1]}'

  def sizes(self) -> run_checkpoints.Sizes:
    step = run_checkpoints.steps(self._root)[-1]
    return run_checkpoints.sizes(self._root, step)


def _silo_rule(settings: TrainSettings) -> str:
  scheme = (
    settings.silos if settings.silos is not None else (settings.method.silos)
  )
  return scheme if isinstance(scheme, str) else repr([tuple(r) for r in scheme])


def _subset_size(plan: plans.Plan, state: TrainState) -> int:
  if plan.method.score is None:
    return plan.total
  return int(np.asarray(state.selective.metrics.subset_size, np.int64).sum())


def _check_finite(
  loss: float,
  step: int,
  plan: plans.Plan,
  state: TrainState,
  saver: _Saver,
) -> None:
  if not math.isfinite(loss):
    raise NonFiniteLossError(
      f'the loss is {loss} at step {step}; {saver.last()}. Lower the learning '
      'rate, clip the gradients (clip_norm), or look for bad values in the seed'
    )
  selective.raise_if_invalid(plan, state.selective)


def _evaluate(
  settings: TrainSettings,
  config: NetworkConfig,
  state: TrainState,
  step: int,
  history: History,
  writer: Any,
) -> dict[str, dict[str, float]]:
  scores = evaluation.evaluate_params(
    settings.mixture_or_task_name,
    config,
    state.params,
    feature_lengths=settings.task_feature_lengths,
    split=settings.eval_split,
    num_examples=settings.eval_examples,
    beam_size=settings.beam_size,
  )
  flat = {f'{t}/{m}': v for t, ms in scores.items() for m, v in ms.items()}
  history.add('eval', step, flat)
  writer.write_scalars(step, {f'eval/{k}': v for k, v in flat.items()})
  return scores


def _scores_line(scores: dict[str, dict[str, float]]) -> str:
  return ', '.join(
    f'{task} {metric} {value:.2f}'
    for task, metrics in scores.items()
    for metric, value in metrics.items()
  )
