"""How the tasks of this package are registered, apart from number_words.

Each task has its own way from rows to text. What follows is the same for all: a
place for seqio's cache, the end mark (`end_of_document`), tokenization by the
vocabulary that is bound when the task is used (`vocabularies`), and EOS.

The cache holds text, not tokens, so that a cache made for one vocabulary cannot
be read with another.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import seqio

from . import end_of_document, vocabularies

# A data set of rows → a data set of examples with 'inputs' and 'targets' as
# string [].
Preprocessor = Callable[..., Any]
# (text, example=…, is_target=…) → what metrics compare.
Postprocessor = Callable[..., Any]


class TextTask(seqio.Task):
  """A task that looks its vocabulary up anew whenever it is used."""

  @property
  def output_features(self) -> Mapping[str, Any]:
    """The features 'inputs' and 'targets', both with the task vocabulary."""
    vocabulary = vocabularies.task_vocabulary()
    feature = seqio.Feature(vocabulary, add_eos=True)
    return {'inputs': feature, 'targets': feature}


def add(
  name: str,
  *,
  source: Any,
  preprocessors: Sequence[Preprocessor],
  postprocess_fn: Postprocessor | None = None,
  metric_fns: Sequence[Callable[..., Any]] = (),
) -> None:
  """Registers a task, unless a task of that name is registered already.

  Args:
    name: name of the task.
    source: a seqio data source.
    preprocessors: lead from the source's rows to examples with 'inputs' and
      'targets' as text.
    postprocess_fn: leads from text to what the metrics compare; None if they
      compare the text itself.
    metric_fns: functions of targets and predictions.

  Example:
    >>> rows = seqio.FunctionDataSource(lambda split, shuffle_files: None, [])
    >>> add('an_example', source=rows, preprocessors=[])
    >>> add('an_example', source=rows, preprocessors=[])
    >>> seqio.TaskRegistry.remove('an_example')
  """
  if name in seqio.TaskRegistry.names():
    return
  seqio.TaskRegistry.add(
    name,
    task_cls=TextTask,
    source=source,
    # TextTask has its own, but seqio wants some.
    output_features={},
    preprocessors=[
      *preprocessors,
      seqio.CacheDatasetPlaceholder(),
      end_of_document.append,
      _read_vocabulary,
      seqio.preprocessors.tokenize,
      seqio.preprocessors.append_eos_after_trim,
    ],
    postprocess_fn=_CutAtEndMark(postprocess_fn),
    metric_fns=list(metric_fns),
  )


def _read_vocabulary(dataset: Any, output_features: Any) -> Any:
  # Read here, because an error raised while TensorFlow traces `tokenize` would
  # be lost among TensorFlow's own.
  for feature in output_features.values():
    _ = feature.vocabulary.vocab_size
  return dataset


class _CutAtEndMark:
  """A postprocessor that cuts text at the end mark before another one."""

  def __init__(self, inner: Postprocessor | None) -> None:
    self._inner = inner

  def __call__(self, text: Any, **context: Any) -> Any:
    if isinstance(text, str):
      text = end_of_document.cut(text)
    return text if self._inner is None else self._inner(text, **context)
