"""TensorFlow, and what imports it, for data: no GPU, and nothing on stderr.

Every module of this package takes them from here, so whichever comes first
imports them properly:

  from dst_t5x.standalone.quiet_tensorflow import seqio
  from dst_t5x.standalone.quiet_tensorflow import tf

TF_CPP_MIN_LOG_LEVEL=0 in the environment shows all that TensorFlow says.
"""

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

from absl import logging

_LEVEL = 'TF_CPP_MIN_LOG_LEVEL'


@contextlib.contextmanager
def _stderr_held_back() -> Iterator[None]:
  """Drops what is written to stderr, unless the body raises."""
  # TensorFlow's libraries write to the descriptor before they read their log
  # level (2.21), so neither the level nor sys.stderr can stop them.
  if os.environ.get(_LEVEL) == '0':
    yield
    return
  # 1 may be JAX's doing, which sets it at import if nobody else has.
  if os.environ.get(_LEVEL, '1') == '1':
    os.environ[_LEVEL] = '2'
  sys.stderr.flush()
  stderr = os.dup(2)
  with tempfile.TemporaryFile() as held:
    os.dup2(held.fileno(), 2)
    try:
      yield
    except BaseException:
      held.seek(0)
      os.write(stderr, held.read())
      raise
    finally:
      os.dup2(stderr, 2)
      os.close(stderr)


def _hide_gpus(tensorflow: object) -> None:
  """Leaves the GPUs, all of whose memory TensorFlow would take, to JAX."""
  try:
    tensorflow.config.set_visible_devices([], 'GPU')  # pyright: ignore[reportAttributeAccessIssue]
  except RuntimeError:
    warnings.warn(
      'TensorFlow was in use before dst_t5x could hide the GPUs from it; it '
      "may hold their memory. Call tf.config.set_visible_devices([], 'GPU') "
      'first, or import dst_t5x.standalone.data first',
      stacklevel=2,
    )


with _stderr_held_back():
  import seqio
  import tensorflow as tf
  from clu import metric_writers

  _hide_gpus(tf)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Keeps seqio's log to errors in the body.

  What it warns of and matters here, the callers say themselves.

  Example:
    >>> with quiet():
    ...   logging.warning('not shown')
  """
  level = logging.get_verbosity()
  logging.set_verbosity(min(level, logging.ERROR))
  try:
    yield
  finally:
    logging.set_verbosity(level)


__all__ = ['metric_writers', 'quiet', 'seqio', 'tf']
