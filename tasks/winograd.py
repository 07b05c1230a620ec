"""Winograd schemas to text: which noun does the starred pronoun stand for?

This is T5's simple form (Raffel et al. 2020, appendix B): the pronoun is marked
by stars, and the model writes the noun. In SuperGLUE's WSC a row proposes one
noun and says whether it is right. Only rows with a right noun can be learnt
from; in evaluation a prediction is compared with the proposed noun
(`postprocessors.wsc`).
"""

from collections.abc import Mapping
from typing import Any

import seqio
import tensorflow as tf

Row = Mapping[str, Any]


def wsc(
  dataset: tf.data.Dataset, *, right_only: bool = False
) -> tf.data.Dataset:
  """Maps rows of WSC to text.

  Args:
    dataset: rows with 'text', 'span1_text' (the noun) and 'span2_text' (the
      pronoun) as string [], 'span2_index' (number of words before the pronoun)
      as i32[], 'label' (1 if the noun is right, 0 if not, -1 if that is hidden)
      as i64[], 'idx' as i32[].
    right_only: whether to leave out rows whose noun is wrong.

  Returns:
    'inputs', 'targets' (the proposed noun), 'label' and 'idx'.

  Example:
    >>> rows = tf.data.Dataset.from_tensors({
    ...   'text': 'Ann lent Eve a book because she asked for it.',
    ...   'span1_text': 'Eve', 'span2_text': 'she', 'span2_index': 6,
    ...   'label': 1, 'idx': 0,
    ... })
    >>> [row] = wsc(rows).as_numpy_iterator()
    >>> row['inputs']
    b'wsc: Ann lent Eve a book because *she* asked for it.'
  """
  if right_only:
    dataset = dataset.filter(lambda row: row['label'] == 1)

  def example(row: Row) -> dict[str, Any]:
    marked = _mark(row['text'], row['span2_text'], row['span2_index'])
    return {
      'inputs': tf.strings.join(['wsc: ', marked]),
      'targets': row['span1_text'],
      'label': row['label'],
      'idx': row['idx'],
    }

  return dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE)


@seqio.map_over_dataset
def definite_pronoun(row: Row) -> dict[str, Any]:
  """Maps a row of Definite Pronoun Resolution to text.

  Args:
    row: 'sentence' and 'pronoun' as string [], 'candidates' as string [2],
      'label' (index of the right candidate) as i64[].

  Returns:
    'inputs', in which the pronoun is marked where it occurs first, and
    'targets'.

  Example:
    >>> rows = tf.data.Dataset.from_tensors({
    ...   'sentence': 'Ann lent Eve a pen because she asked.',
    ...   'pronoun': 'she', 'candidates': ['Ann', 'Eve'], 'label': 1,
    ... })
    >>> [row] = definite_pronoun(rows).as_numpy_iterator()
    >>> row['inputs'], row['targets']
    (b'wsc: Ann lent Eve a pen because *she* asked.', b'Eve')
  """
  pattern = tf.strings.join([' (', row['pronoun'], r')( |\.|,)'])
  marked = tf.strings.regex_replace(
    row['sentence'], pattern, r' *\1*\2', replace_global=False
  )
  return {
    'inputs': tf.strings.join(['wsc: ', marked]),
    'targets': row['candidates'][row['label']],
  }


def _mark(text: tf.Tensor, pronoun: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
  """Returns the text with stars around the pronoun, the word at an index.

  In two rows of WSC the word at the index is not the pronoun alone: in one,
  punctuation is glued to the pronoun; in the other, the pronoun is the next
  word. For these, the first word from the index on that begins with the pronoun
  is taken, what is glued to it is set apart, and white space around the text is
  dropped. That gives T5's text for both.
  """
  words = tf.strings.split([text], sep=' ').values
  as_given = tf.equal(words[index], pronoun)
  # The pronoun must be a whole word: 'her' does not begin with 'he'.
  begins = tf.strings.regex_full_match(
    words, tf.strings.join([pronoun, r'(\W.*)?'])
  )
  candidates = tf.where(begins & (tf.range(tf.size(words)) >= index))[:, 0]
  has_candidate = tf.debugging.assert_positive(
    tf.size(candidates),
    message='the pronoun of a WSC row is not in its text from its index on',
  )
  # Without this, indexing may run first and fail with its own message.
  with tf.control_dependencies([has_candidate]):
    place = candidates[0]
  glued = tf.strings.regex_replace(
    words[place], tf.strings.join(['^', pronoun]), ''
  )
  star = tf.strings.join(['*', pronoun, '*'])
  star = tf.where(
    tf.equal(glued, ''), star, tf.strings.join([star, ' ', glued])
  )
  parts = [words[:place], [star], words[place + 1 :]]
  marked = tf.strings.reduce_join(tf.concat(parts, 0), separator=' ')
  return tf.where(as_given, marked, tf.strings.strip(marked))
