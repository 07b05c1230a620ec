r"""An optional mark at the end of every target, where predictions are cut.

The paper appends "\n[eod]" to all training examples of its PaLM 2 models, and
truncates predictions there, against hallucinations (DST, appendix F). Here
there is no mark by default; the files in gin/tasks/ bind it to the macro
END_OF_DOCUMENT:

  --gin.END_OF_DOCUMENT="'\n[eod]'"
"""

import gin
import tensorflow as tf

# The paper's mark.
PAPER = '\n[eod]'


class SuffixError(ValueError):
  """A mark could not be found again in a prediction."""


@gin.configurable
def suffix(text: str = '') -> str:
  r"""Returns the mark that is appended to targets now.

  Args:
    text: bound by gin; '' for no mark.

  Returns:
    The text.

  Raises:
    SuffixError: if it is no text, or nothing but white space.

  Example:
    >>> suffix('\n[eod]')
    '\n[eod]'
  """
  if not isinstance(text, str) or (text and not text.strip()):
    raise SuffixError(
      f'END_OF_DOCUMENT is {text!r}; must be a text with visible characters, '
      "such as '\\n[eod]', or '' for none"
    )
  return text


def append(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Returns examples whose targets end in the mark, if there is one.

  Args:
    dataset: examples with 'targets' as string [].

  Returns:
    The examples; the same ones if there is no mark.

  Example:
    >>> texts = tf.data.Dataset.from_tensors({'targets': 'yes'})
    >>> [x['targets'] for x in append(texts).as_numpy_iterator()]
    [b'yes']
  """
  mark = suffix()
  if not mark:
    return dataset
  return dataset.map(
    lambda x: {**x, 'targets': tf.strings.join([x['targets'], mark])},
    num_parallel_calls=tf.data.AUTOTUNE,
  )


def cut(text: str, mark: str | None = None) -> str:
  r"""Returns a text up to the mark, or the whole text.

  Vocabularies may lose white space (T5's has no line end). So the mark is
  looked for without its outer white space; and if it begins with white space,
  white space before it in the text is cut off, too.

  Args:
    text: a prediction or a target.
    mark: text to cut at; None for the mark in use, '' for none.

  Returns:
    The text without the first mark and all that follows.

  Example:
    >>> cut('yes\n[eod] no', '\n[eod]'), cut('yes', '\n[eod]')
    ('yes', 'yes')
  """
  mark = suffix() if mark is None else suffix(mark)
  if not mark:
    return text
  before, mark_in_text, _ = text.partition(mark.strip())
  return before.rstrip() if mark_in_text and mark[0].isspace() else before
