"""Scores of decoded text by a task's own metrics.

Evaluation is seqio's: the examples in their order, unpacked, decoded by the
vocabulary, post-processed and scored as the task says. Rows are padded to one
shape, so that decoding is compiled once.
"""

import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.standalone.prediction import (
  PredictFn,
  TruncationWarning,
  predict_rows,
  predict_texts,
  predictor,
)
from dst_t5x.standalone.quiet_tensorflow import quiet, seqio
from dst_t5x.standalone.task_lookup import (
  DataError,
  check_count,
  check_lengths,
  find,
  subtasks,
)


class Evaluation(NamedTuple):
  """What an evaluation found, by task and metric.

  Attributes:
    scores: numbers; text metrics are percentages.
    notes: texts, such as the signature of a BLEU score.
  """

  scores: dict[str, dict[str, float]]
  notes: dict[str, dict[str, str]]


def evaluate(
  mixture_or_task_name: str, predict_fn: PredictFn, **settings: Any
) -> dict[str, dict[str, float]]:
  """Returns the scores alone of `evaluate_with_notes`.

  Args:
    mixture_or_task_name: a registered seqio task or mixture.
    predict_fn: from inputs to predictions.
    **settings: see `evaluate_with_notes`.

  Returns:
    Task name → metric name → value; text metrics are percentages.

  Example:
    >>> import dst_t5x.tasks.number_words
    >>> def silence(tokens):
    ...   return np.ones((len(tokens), 1), np.int32)  # EOS only
    >>> lengths = {'inputs': 64, 'targets': 64}
    >>> evaluate('number_words', silence, feature_lengths=lengths)
    {'number_words': {'exact_match': 0.0}}
  """
  return evaluate_with_notes(
    mixture_or_task_name, predict_fn, **settings
  ).scores


def evaluate_with_notes(
  mixture_or_task_name: str,
  predict_fn: PredictFn,
  *,
  feature_lengths: Mapping[str, int],
  split: str = 'validation',
  num_examples: int | None = None,
  batch_size: int = 64,
  use_cached: bool = False,
  output_dir: str | os.PathLike[str] | None = None,
  step: int | None = None,
) -> Evaluation:
  """Returns the metrics of every task behind a name.

  Args:
    mixture_or_task_name: a registered seqio task or mixture.
    predict_fn: decodes encoder_input_tokens i32[batch_size, inputs length] to
      tokens i32[batch_size, any length]; all-zero rows are padding.
    feature_lengths: tokens of 'inputs' and of 'targets' (count); targets are
      scored as text, in full.
    split: which split of the tasks, such as 'validation'.
    num_examples: evaluated of each task, from the first (count); None for all.
    batch_size: rows of a batch (count); the last one is padded.
    use_cached: whether to read seqio's cache.
    output_dir: where `TASK-metrics.jsonl` gets a line and `TASK-STEP.jsonl`
      the predictions, as seqio writes them.
    step: steps taken (count), which these files name.

  Returns:
    Scores and notes of every task that has a metric.

  Raises:
    UnknownTaskError: if the name is not registered.
    DataError: if split or lengths cannot be used, or there is no example or
      no metric.
    NotImplementedError: if a metric needs scores rather than predictions.
    ValueError: if `predict_fn` returns something else, or a metric fails.
  """
  tasks = _scored(mixture_or_task_name, split)
  lengths = check_lengths(mixture_or_task_name, feature_lengths)
  check_count('batch_size', batch_size)
  if num_examples is not None:
    check_count('num_examples', num_examples)
  if output_dir is not None:
    pathlib.Path(output_dir).mkdir(parents=True, exist_ok=True)
  with quiet():
    evaluator = seqio.Evaluator(
      mixture_or_task_name,
      seqio.EncDecFeatureConverter(pack=False),
      eval_split=split,
      use_cached=use_cached,
      sequence_length=lengths,
      num_examples=num_examples,
      logger_cls=() if output_dir is None else (seqio.JSONLogger,),
      log_dir=None if output_dir is None else os.fspath(output_dir),
      async_compute_metrics=False,
    )
    for task in tasks:
      dataset = evaluator.cached_task_datasets[task.name]
      if int(dataset.cardinality()) == 0:
        raise DataError(f'task {task.name!r} has no example in split {split!r}')

    def predict(dataset: Any) -> list[tuple[int, np.ndarray]]:
      return _predict_dataset(dataset, predict_fn, batch_size)

    results, _ = evaluator.evaluate(
      compute_metrics=True,
      step=step,
      predict_fn=predict,  # pyright: ignore[reportArgumentType] # as documented
    )
  scores, notes = {}, {}
  for task, values in results.result().items():
    texts = {k: v for k, v in values.items() if hasattr(v, 'textdata')}
    notes[task] = {name: str(text.textdata) for name, text in texts.items()}
    scores[task] = {
      name: float(getattr(value, 'value', value))
      for name, value in values.items()
      if name not in texts
    }
  return Evaluation(scores, notes)


def evaluate_params(
  mixture_or_task_name: str,
  config: NetworkConfig,
  params: Any,
  *,
  feature_lengths: Mapping[str, int],
  beam_size: int = 1,
  alpha: float = 0.6,
  **settings: Any,
) -> dict[str, dict[str, float]]:
  """Returns the metrics of a network's decoded text.

  Args:
    mixture_or_task_name: a registered seqio task or mixture.
    config: sizes of the network.
    params: parameters of the network, as a nested dict.
    feature_lengths: tokens of 'inputs' and of 'targets' (count); the latter
      bounds what is decoded.
    beam_size: beams (count); 1 decodes greedily.
    alpha: exponent of the length penalty, with beams.
    **settings: further arguments of `evaluate`.

  Returns:
    Task name → metric name → value.

  Raises:
    ValueError: as `evaluate`, or if the network lacks ids of the vocabulary.
  """
  lengths = check_lengths(mixture_or_task_name, feature_lengths)
  vocabulary = find(mixture_or_task_name).output_features['targets'].vocabulary
  predict_fn = predictor(
    config,
    params,
    vocabulary=vocabulary,
    max_decode_len=lengths['targets'],
    beam_size=beam_size,
    alpha=alpha,
  )
  return evaluate(
    mixture_or_task_name, predict_fn, feature_lengths=lengths, **settings
  )


def _scored(name: str, split: str) -> list[Any]:
  """Returns the tasks with this split and a metric of predictions."""
  scored, unscored = [], []
  for task in subtasks(name, split=split):
    (scored if task.metric_objs else unscored).append(task)
    for metric in task.metric_objs:
      kind = metric.model_output_type
      if kind != seqio.metrics.ModelOutputType.PREDICTION:
        raise NotImplementedError(
          f'task {task.name!r} has a metric of {kind.name}; only metrics of '
          'predictions can be computed so far'
        )
  names = ', '.join(task.name for task in unscored)
  if not scored:
    raise DataError(f'no metric to evaluate {name!r} by: {names} have none')
  if unscored:
    warnings.warn(
      f'left out of {name!r} for want of a metric: {names}', stacklevel=3
    )
  return scored


def _predict_dataset(
  dataset: Any, predict_fn: PredictFn, batch_size: int
) -> list[tuple[int, np.ndarray]]:
  """Returns (index, tokens) for every example of an enumerated dataset."""
  results, full, width = [], 0, 0
  for indices, features in dataset.batch(batch_size).as_numpy_iterator():
    rows = features['encoder_input_tokens']
    width = rows.shape[1]
    full += int(np.sum(np.all(rows != 0, axis=1)))
    tokens = predict_rows(predict_fn, rows, batch_size=batch_size)
    results += zip(indices.tolist(), tokens, strict=True)
  if full:
    warnings.warn(
      f'{full} of {len(results)} inputs fill all {width} tokens and may have '
      'been cut',
      TruncationWarning,
      stacklevel=2,
    )
  return results


__all__ = [
  'Evaluation',
  'PredictFn',
  'TruncationWarning',
  'evaluate',
  'evaluate_params',
  'evaluate_with_notes',
  'predict_texts',
  'predictor',
]
