"""The numbers that the demonstration is judged by, and training never sees."""

from collections.abc import Sequence
from typing import Any

from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.standalone import evaluation

TASK = 'number_words'
# Of a packed training row, which holds several examples.
FEATURE_LENGTHS = {'inputs': 128, 'targets': 128}
# Of one example: no number is longer.
DECODE_LENGTH = 64
BATCH_SIZE = 100


def examples() -> tuple[list[str], list[str]]:
  """Returns prompts and answers of the held-out numbers.

  Returns:
    Inputs and targets, in the same order.
  """
  from dst_t5x.tasks import number_words

  return number_words.examples(TASK, 'validation')


def predict(
  config: NetworkConfig, params: Any, inputs: Sequence[str]
) -> list[str]:
  """Returns what a network answers, decoded greedily.

  Args:
    config: sizes of the network.
    params: parameters of the network, as a nested dict.
    inputs: prompts.

  Returns:
    As many texts, in the same order.
  """
  return evaluation.predict_texts(
    config,
    params,
    inputs,
    input_length=DECODE_LENGTH,
    max_decode_len=DECODE_LENGTH,
    batch_size=BATCH_SIZE,
  )


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
