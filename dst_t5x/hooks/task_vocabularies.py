"""The model's vocabularies are those of the task."""

from typing import Any

import seqio

FEATURES = ('inputs', 'targets')


def of_task(mixture_or_task_name: str, feature: str, vocab_size: int) -> Any:
  """Returns the vocabulary of a task's feature, which the model must hold.

  Args:
    mixture_or_task_name: registered with seqio.
    feature: 'inputs' or 'targets'.
    vocab_size: rows of the model's embedding (count).

  Returns:
    The vocabulary.

  Raises:
    ValueError: if the task is unknown, has no such feature, or has more tokens
      than the model.
  """
  try:
    features = seqio.get_mixture_or_task(mixture_or_task_name).output_features
  except ValueError as error:
    raise ValueError(
      f'MIXTURE_OR_TASK_NAME={mixture_or_task_name!r}: {error}. A gin file of '
      'tasks/ imports the module that registers it'
    ) from error
  if feature not in features:
    raise ValueError(
      f'task {mixture_or_task_name!r} has no feature {feature!r}; it has '
      f'{", ".join(features)}'
    )
  vocabulary = features[feature].vocabulary
  if vocabulary.vocab_size > vocab_size:
    raise ValueError(
      f'task {mixture_or_task_name!r} has {vocabulary.vocab_size} tokens, and '
      f'VOCAB_SIZE of the model is {vocab_size}: take a model of its '
      'vocabulary, or the task with that of the model'
    )
  return vocabulary
