"""The vocabulary of the tasks: chosen once, by gin, for all of them.

Every task of `registration` asks `task_vocabulary` whenever it is used, not
when it is registered. The files in gin/tasks/ bind the function's argument to
the macro VOCABULARY. T5X's model files use the same macro, so that one binding
sets the vocabulary of the model and of the task, which T5X wants to be equal.

  --gin.VOCABULARY="@vocabularies.byte()"

or, without gin files, `gin.bind_parameter('task_vocabulary.vocabulary', v)`.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import gin
import seqio
import tensorflow as tf

# T5 1.1's model file, which includes the sentinels; T5X's t5_1_1/base.gin names
# it, too.
T5_MODEL = 'gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model'


class VocabularyError(ValueError):
  """A vocabulary cannot be read; the message says why and what would work."""


class SentencePieceVocabulary(seqio.SentencePieceVocabulary):
  """seqio's vocabulary, with an error that says what to do without its file.

  The file is read on first use. The vocabulary equals seqio's own with the same
  file, such as those in T5X's model files.
  """

  @property
  def tokenizer(self) -> Any:
    """The tokenizer of the package sentencepiece."""
    with _explained(self.sentencepiece_model_file):
      return super().tokenizer

  @property
  def sp_model(self) -> bytes | None:
    """The content of the file."""
    with _explained(self.sentencepiece_model_file):
      return super().sp_model


@gin.configurable
def sentencepiece(path: str, extra_ids: int = 0) -> seqio.Vocabulary:
  """Returns the vocabulary of a SentencePiece model file.

  Args:
    path: path of the file, read on first use; TensorFlow opens it, so that
      gs:// works.
    extra_ids: number of sentinels to add after those in the file (count).

  Returns:
    The vocabulary.

  Example:
    >>> sentencepiece('nowhere.model').sentencepiece_model_file
    'nowhere.model'
  """
  return SentencePieceVocabulary(path, extra_ids)


@gin.configurable
def t5() -> seqio.Vocabulary:
  """Returns T5 1.1's vocabulary of 32,100 pieces, read on first use.

  Example:
    >>> t5().sentencepiece_model_file == T5_MODEL
    True
  """
  return sentencepiece(T5_MODEL)


@gin.configurable
def byte(extra_ids: int = 0) -> seqio.Vocabulary:
  """Returns the vocabulary of bytes, which needs no file.

  Args:
    extra_ids: number of sentinels after the bytes (count); the bundled seed has
      none, ByT5 has 125.

  Returns:
    The vocabulary: 0 is padding, 1 EOS, 2 unknown, byte b is b + 3.

  Example:
    >>> byte().encode('ab')
    [100, 101]
  """
  return seqio.ByteVocabulary(extra_ids=extra_ids)


@gin.configurable
def task_vocabulary(
  vocabulary: seqio.Vocabulary | None = None,
) -> seqio.Vocabulary:
  """Returns the vocabulary that inputs and targets are tokenized with now.

  Args:
    vocabulary: bound by gin; None for that of `t5`.

  Returns:
    The vocabulary.

  Raises:
    VocabularyError: if what is bound is no vocabulary.

  Example:
    >>> task_vocabulary(byte()).vocab_size
    259
  """
  if vocabulary is None:
    return t5()
  if not isinstance(vocabulary, seqio.Vocabulary):
    raise VocabularyError(
      f'VOCABULARY is {vocabulary!r}; must be a seqio vocabulary, such as '
      '@vocabularies.t5(), @vocabularies.byte() or '
      '@vocabularies.sentencepiece()'
    )
  return vocabulary


def by_name(name: str) -> seqio.Vocabulary:
  """Returns the vocabulary that a command's option --seed-vocab names.

  Args:
    name: 't5', 'byte', or the path of a SentencePiece model.

  Returns:
    The vocabulary; a file is read on first use.

  Example:
    >>> by_name('byte').vocab_size
    259
  """
  if name == 't5':
    return t5()
  return byte() if name == 'byte' else sentencepiece(name)


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
  """Raises VocabularyError in place of an error from reading the file."""
  try:
    yield
  except (tf.errors.OpError, OSError, RuntimeError) as error:
    raise VocabularyError(
      f'the vocabulary {path!r} cannot be read: {_first_line(error)}. Copy the '
      'file to this machine and name it (--gin.VOCABULARY='
      '@vocabularies.sentencepiece() and --gin.sentencepiece.path=..., or '
      '--seed-vocab), or use bytes (@vocabularies.byte(), --seed-vocab byte)'
    ) from error


def _first_line(error: BaseException) -> str:
  return (str(error).split('\n') or [''])[0] or type(error).__name__
