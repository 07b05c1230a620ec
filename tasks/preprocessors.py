"""From rows to text: what the model reads (inputs) and should write (targets).

The wording is T5's (Raffel et al., Exploring the Limits of Transfer Learning,
2020, appendix D), character for character, so that scores can be compared. All
functions here map data sets of string tensors; besides inputs and targets, an
example keeps what scoring needs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

# The target where the gold answer is hidden, as in test sets.
UNKNOWN = '<unk>'

Row = Mapping[str, Any]


@seqio.map_over_dataset
def classification(
  row: Row, *, name: str, fields: Sequence[str], labels: Sequence[str]
) -> dict[str, Any]:
  """Maps rows with a class label to text: `name field: text field: text …`.

  Args:
    row: every field as string [], 'label' as i64[] (-1 if it is hidden), 'idx'
      as i32[].
    name: first word of the input.
    fields: names of the fields in the order of the input.
    labels: text of every class.

  Returns:
    'inputs', 'targets' and 'idx'.

  Example:
    >>> rows = tf.data.Dataset.from_tensors({
    ...   'premise': 'It rains.', 'hypothesis': 'It is wet.', 'label': 1,
    ...   'idx': 7,
    ... })
    >>> [row] = classification(
    ...   rows,
    ...   name='rte',
    ...   fields=['hypothesis', 'premise'],
    ...   labels=['no', 'yes'],
    ... ).as_numpy_iterator()
    >>> row['inputs'], row['targets']
    (b'rte hypothesis: It is wet. premise: It rains.', b'yes')
  """
  return {
    'inputs': _named_fields(name, row, fields),
    'targets': _label(row['label'], labels),
    'idx': row['idx'],
  }


@seqio.map_over_dataset
def multirc(row: Row) -> dict[str, Any]:
  """Maps an answer of MultiRC to text, without the row's HTML tags.

  Args:
    row: 'question', 'answer' and 'paragraph' as string [], 'label' as i64[] (-1
      if it is hidden), 'idx' with 'paragraph', 'question' and 'answer' as
      i32[].

  Returns:
    'inputs', 'targets' and 'idx/paragraph', 'idx/question', 'idx/answer'.

  Example:
    >>> rows = tf.data.Dataset.from_tensors({
    ...   'paragraph': '<b>Sent 1: </b>Ann sat.', 'question': 'Who sat?',
    ...   'answer': 'Ann', 'label': 1,
    ...   'idx': {'paragraph': 0, 'question': 0, 'answer': 0},
    ... })
    >>> [row] = multirc(rows).as_numpy_iterator()
    >>> row['inputs']
    b'multirc question: Who sat? answer: Ann paragraph: Sent 1: Ann sat.'
  """
  text = _named_fields('multirc', row, ['question', 'answer', 'paragraph'])
  text = tf.strings.regex_replace(text, '<br>', ' ')
  return {
    'inputs': tf.strings.regex_replace(text, '</?b>', ''),
    'targets': _label(row['label'], ['False', 'True']),
    **{f'idx/{key}': value for key, value in row['idx'].items()},
  }


def record(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Maps queries of ReCoRD to text: one example for each right answer.

  A query whose answers are hidden makes one example.

  Args:
    dataset: rows with 'passage' and 'query' as string [], 'entities' and
      'answers' as string [any], 'idx' with 'passage' and 'query' as i32[].

  Returns:
    'inputs', 'targets', all 'answers', 'idx/passage' and 'idx/query'.

  Example:
    >>> rows = tf.data.Dataset.from_tensors({
    ...   'passage': 'Ann won.', 'query': '@placeholder won',
    ...   'entities': ['Ann', 'Eve'], 'answers': ['Ann'],
    ...   'idx': {'passage': 0, 'query': 0},
    ... })
    >>> [row] = record(rows).as_numpy_iterator()
    >>> row['inputs']
    b'record query: @placeholder won entities: Ann, Eve passage: Ann won.'
  """

  def examples(row: Row) -> tf.data.Dataset:
    answers = row['answers']
    targets = tf.cond(
      tf.size(answers) > 0, lambda: answers, lambda: tf.constant([UNKNOWN])
    )
    # A sentence ends where a highlight begins: it gets a full stop, unless it
    # already has a mark at its end.
    passage = tf.strings.regex_replace(
      row['passage'], r'([.?!"\'])\n@highlight\n', r'\1 '
    )
    passage = tf.strings.regex_replace(passage, r'\n@highlight\n', '. ')
    entities = tf.strings.reduce_join(row['entities'], separator=', ')
    parts = ['record query:', row['query'], 'entities:', entities]
    shared = {
      'inputs': tf.strings.join([*parts, 'passage:', passage], separator=' '),
      'answers': answers,
      **{f'idx/{key}': value for key, value in row['idx'].items()},
    }
    return tf.data.Dataset.from_tensor_slices(targets).map(
      lambda target: {**shared, 'targets': target}
    )

  return dataset.flat_map(examples)


@seqio.map_over_dataset
def closed_book_question(row: Row) -> dict[str, Any]:
  """Maps a question of TriviaQA to text, without any document.

  Args:
    row: 'question' as string [], 'answer' with 'value' as string [] and
      'aliases' as string [any].

  Returns:
    'inputs', 'targets' (the answer in its main form) and all 'answers'.

  Example:
    >>> rows = tf.data.Dataset.from_tensors({
    ...   'question': 'Who won?', 'answer': {'value': 'Ann', 'aliases': ['Ann']}
    ... })
    >>> [row] = closed_book_question(rows).as_numpy_iterator()
    >>> row['inputs'], row['targets']
    (b'trivia_qa question: Who won?', b'Ann')
  """
  return {
    'inputs': tf.strings.join(['trivia_qa question: ', row['question']]),
    'targets': row['answer']['value'],
    'answers': row['answer']['aliases'],
  }


@seqio.map_over_dataset
def translation(row: Row, *, source: str, target: str) -> dict[str, Any]:
  """Maps a pair of sentences to text.

  Args:
    row: 'source' as string [], 'references' as string [any], of which the
      first is the target.
    source: English name of the language to translate from.
    target: English name of the language to translate to.

  Returns:
    'inputs', 'targets' and all 'references'.

  Example:
    >>> rows = tf.data.Dataset.from_tensors({
    ...   'source': 'Ja.', 'references': ['Yes.', 'Yeah.']
    ... })
    >>> [row] = translation(
    ...   rows, source='German', target='English'
    ... ).as_numpy_iterator()
    >>> row['inputs'], row['targets']
    (b'translate German to English: Ja.', b'Yes.')
  """
  prompt = f'translate {source} to {target}: '
  return {
    'inputs': tf.strings.join([prompt, row['source']]),
    'targets': row['references'][0],
    'references': row['references'],
  }


def _named_fields(name: str, row: Row, fields: Sequence[str]) -> tf.Tensor:
  words = [name]
  for field in fields:
    words += [f'{field}:', row[field]]
  return tf.strings.join(words, separator=' ')


def _label(label: tf.Tensor, labels: Sequence[str]) -> tf.Tensor:
  # A hidden label is -1, and so takes the first of these texts.
  return tf.gather([UNKNOWN, *labels], label + 1)
