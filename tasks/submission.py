"""Predictions for SuperGLUE's hidden test sets, as its web site takes them.

One JSON-lines file a task, `BoolQ.jsonl` … `AX-g.jsonl`; zipped together they
are a submission. A prediction that names no class, which would not be accepted,
becomes the first class.

Source: super.gluebenchmark.com, FAQ.
"""

import collections
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from . import end_of_document, postprocessors
from .superglue import CLASSIFICATION

Example = Mapping[str, Any]
Outputs = Iterable[tuple[Example, str]]


class SubmissionError(ValueError):
  """Predictions cannot be handed in: for which task, and why."""


class Submission(NamedTuple):
  """What was written.

  Attributes:
    path: of the file.
    lines: in it (count).
    invalid: predictions that named no class (count).
  """

  path: pathlib.Path
  lines: int
  invalid: int


def write(
  directory: str | os.PathLike[str], outputs: Mapping[str, Outputs]
) -> dict[str, Submission]:
  r"""Writes the files of all tasks that are part of a submission.

  Args:
    directory: created if absent; files in it are replaced.
    outputs: task name → examples, as seqio gives them, with the texts
      predicted. Other tasks than SuperGLUE's are left out.

  Returns:
    Task name → its file.

  Raises:
    SubmissionError: if none of the tasks is SuperGLUE's, or an example comes
      twice with different predictions.

  Example:
    >>> import tempfile
    >>> outputs = {'super_glue_boolq_v102': [({'idx': 4}, 'True')]}
    >>> found = write(tempfile.mkdtemp(), outputs)
    >>> found['super_glue_boolq_v102'].path.read_text()
    '{"idx": 4, "label": "true"}\n'
  """
  root = pathlib.Path(directory)
  files = _FILES.keys() & outputs.keys()
  if not files:
    raise SubmissionError(
      f'none of {", ".join(outputs)} is part of a SuperGLUE submission; these '
      f'are: {", ".join(_FILES)}'
    )
  root.mkdir(parents=True, exist_ok=True)
  written = {}
  for task in sorted(files):
    name, layout = _FILES[task]
    cut = [(e, end_of_document.cut(text)) for e, text in outputs[task]]
    rows, invalid = layout(task, cut)
    path = root / f'{name}.jsonl'
    path.write_text(
      ''.join(f'{json.dumps(row)}\n' for row in rows), encoding='utf-8'
    )
    written[task] = Submission(path, len(rows), invalid)
  return written


Layout = Callable[[str, list[tuple[Example, str]]], tuple[list[Any], int]]


def _labels(*written: Any) -> Layout:
  """Returns a layout of one label per example, so written for class 0, 1, …."""

  def layout(
    task: str, outputs: list[tuple[Example, str]]
  ) -> tuple[list[Any], int]:
    labels = CLASSIFICATION[task.split('_')[2]].labels
    found, invalid = {}, 0
    for example, text in outputs:
      number = postprocessors.class_number(text, labels=labels)
      invalid += number == postprocessors.INVALID
      _put(found, task, int(example['idx']), written[max(number, 0)])
    return _by_index(found), invalid

  return layout


def _wsc(
  task: str, outputs: list[tuple[Example, str]]
) -> tuple[list[Any], int]:
  found, invalid = {}, 0
  for example, text in outputs:
    number = postprocessors.wsc(text, example=example)
    invalid += number == postprocessors.INVALID
    _put(found, task, int(example['idx']), str(number == 1))
  return _by_index(found), invalid


def _record(
  task: str, outputs: list[tuple[Example, str]]
) -> tuple[list[Any], int]:
  found: dict[int, Any] = {}
  for example, text in outputs:
    _put(found, task, int(example['idx/query']), text)
  return _by_index(found), 0


def _multirc(
  task: str, outputs: list[tuple[Example, str]]
) -> tuple[list[Any], int]:
  tree: Any = collections.defaultdict(lambda: collections.defaultdict(dict))
  invalid = 0
  for example, text in outputs:
    value = postprocessors.multirc(text)['value']
    invalid += value == postprocessors.INVALID
    paragraph, question, answer = (
      int(example[f'idx/{key}']) for key in ('paragraph', 'question', 'answer')
    )
    _put(tree[paragraph][question], task, answer, max(value, 0))
  rows = []
  for paragraph in sorted(tree):
    questions = [
      {'idx': question, 'answers': _by_index(tree[paragraph][question])}
      for question in sorted(tree[paragraph])
    ]
    rows.append({'idx': paragraph, 'passage': {'questions': questions}})
  return rows, invalid


def _put(found: dict[int, Any], task: str, index: int, label: Any) -> None:
  if found.setdefault(index, label) != label:
    raise SubmissionError(
      f'{task}: example {index} has two predictions, {found[index]!r} and '
      f'{label!r}'
    )


def _by_index(found: Mapping[int, Any]) -> list[dict[str, Any]]:
  return [{'idx': i, 'label': found[i]} for i in sorted(found)]


_YES_NO = _labels('false', 'true')
_ENTAILMENT = _labels('entailment', 'not_entailment')
_FILES: Mapping[str, tuple[str, Layout]] = {
  'super_glue_boolq_v102': ('BoolQ', _YES_NO),
  'super_glue_cb_v102': (
    'CB',
    _labels('entailment', 'contradiction', 'neutral'),
  ),
  'super_glue_copa_v102': ('COPA', _labels(0, 1)),
  'super_glue_multirc_v102': ('MultiRC', _multirc),
  'super_glue_record_v102': ('ReCoRD', _record),
  'super_glue_rte_v102': ('RTE', _ENTAILMENT),
  'super_glue_wic_v102': ('WiC', _YES_NO),
  'super_glue_wsc_v102_simple_eval': ('WSC', _wsc),
  'super_glue_axb_v102': ('AX-b', _ENTAILMENT),
  'super_glue_axg_v102': ('AX-g', _ENTAILMENT),
}
