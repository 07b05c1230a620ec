"""GSM8K: grade-school mathematics, question → rationale and final number.

The target is the data set's own: the rationale and, on a last line, `#### `
with the number. Calculator notes (`<<48/2=24>>`), which say a result before it
is written, are left out. What counts is the final number alone
(`final_numbers`).

The data set has no validation rows. `gsm8k` trains on all 7,473 rows, as the
paper does, and its `validation` is the test set under another name: report it,
but choose nothing by it. To choose settings, use `gsm8k_dev`: its `validation`
is the last 473 rows, on which it does not train.

Source: Cobbe et al., Training Verifiers to Solve Math Word Problems (2021).
"""

from collections.abc import Mapping
from typing import Any

import seqio
import tensorflow as tf

from . import final_numbers, registration
from .tfds_source import TfdsSource

SPLITS: Mapping[str, Mapping[str, str]] = {
  'gsm8k': {'train': 'train', 'validation': 'test', 'test': 'test'},
  'gsm8k_dev': {
    'train': 'train[:7000]',
    'validation': 'train[7000:]',
    'test': 'test',
  },
}


@seqio.map_over_dataset
def question_and_rationale(row: Mapping[str, Any]) -> dict[str, Any]:
  r"""Maps a problem to text.

  Args:
    row: 'question' and 'answer' as string [].

  Returns:
    'inputs' and 'targets'.

  Example:
    >>> rows = tf.data.Dataset.from_tensors({
    ...   'question': 'Two and two?', 'answer': '2 + 2 = <<2+2=4>>4\n#### 4'
    ... })
    >>> [row] = question_and_rationale(rows).as_numpy_iterator()
    >>> row['inputs'], row['targets']
    (b'gsm8k question: Two and two?', b'2 + 2 = 4\n#### 4')
  """
  return {
    'inputs': tf.strings.join(['gsm8k question: ', row['question']]),
    'targets': tf.strings.regex_replace(row['answer'], '<<[^>]*>>', ''),
  }


def _register() -> None:
  for name, splits in SPLITS.items():
    registration.add(
      name,
      source=TfdsSource('gsm8k:1.0.0', splits),
      preprocessors=[question_and_rationale],
      postprocess_fn=final_numbers.final,
      metric_fns=[final_numbers.accuracy],
    )


_register()
