"""How all text tasks here are registered: one form, settled when used.

What a task's rows look like is its own; the rest is the same for all: a place
for seqio's cache, the end mark (`end_of_document`), tokenization by the
vocabulary of the moment (`vocabularies`), EOS.

The cache holds text, not tokens, so that no cache made for one vocabulary can
be read with another.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import seqio

from . import end_of_document, vocabularies

# A dataset of rows → a dataset of examples with the strings inputs, targets.
Preprocessor = Callable[..., Any]
# (text, example=…, is_target=…) → what metrics compare.
Postprocessor = Callable[..., Any]


class TextTask(seqio.Task):
  """A task whose vocabulary is looked up whenever its features are."""

  @property
  def output_features(self) -> Mapping[str, Any]:
    """Inputs and targets, with `vocabularies.task_vocabulary`'s vocabulary."""
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
  """Registers a task, unless the name is taken: then that one stays.

  Args:
    name: of the task.
    source: a seqio data source.
    preprocessors: from rows to examples with 'inputs' and 'targets' as text.
    postprocess_fn: from text to what the metrics compare; None for the text.
    metric_fns: of targets and predictions.

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
    # What TextTask replaces; given, because seqio keeps it.
    output_features={},
    preprocessors=[
      *preprocessors,
      seqio.CacheDatasetPlaceholder(),
      end_of_document.append,
      _read_vocabulary,
      seqio.preprocessors.tokenize,
      seqio.preprocessors.append_eos_after_trim,
    ],
    postprocess_fn=_Cut(postprocess_fn),
    metric_fns=list(metric_fns),
  )


def _read_vocabulary(dataset: Any, output_features: Any) -> Any:
  # While TensorFlow traces `tokenize`, an error of the vocabulary's would be
  # lost among its own.
  for feature in output_features.values():
    _ = feature.vocabulary.vocab_size
  return dataset


class _Cut:
  """Cuts a text at the end mark, then hands it on."""

  def __init__(self, inner: Postprocessor | None) -> None:
    self._inner = inner

  def __call__(self, text: Any, **context: Any) -> Any:
    if isinstance(text, str):
      text = end_of_document.cut(text)
    return text if self._inner is None else self._inner(text, **context)
