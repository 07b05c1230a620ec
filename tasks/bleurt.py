"""BLEURT, where the user has it: the package and a checkpoint.

The paper reports BLEURT-20 against reference A. The package is not on PyPI:
`pip install git+https://github.com/google-research/bleurt`; the checkpoint is
a download of its own (BLEURT-20.zip). Without either, the report says so.

Source: Sellam et al., BLEURT (2020); Pu et al., Learning Compact Metrics for
MT (2021).
"""

import functools
import importlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from typing import Any

import gin
import seqio

_VARIABLE = 'BLEURT_CHECKPOINT'


@gin.configurable
def checkpoint(path: str = '') -> str:
  """Returns the directory of the checkpoint in use, '' for none.

  Args:
    path: bound by gin; by default the environment variable BLEURT_CHECKPOINT.

  Returns:
    The path.

  Example:
    >>> checkpoint('BLEURT-20')
    'BLEURT-20'
  """
  return path or os.environ.get(_VARIABLE, '')


def bleurt(
  targets: Sequence[str | Sequence[str]], predictions: Sequence[str]
) -> Mapping[str, Any]:
  """Returns the mean BLEURT of predictions, or why there is none.

  Args:
    targets: one or several reference texts per prediction; the first counts.
    predictions: texts.

  Returns:
    `{'bleurt': percent, 'bleurt_signature': the checkpoint's name}`, or
    `{'bleurt_signature': 'not computed: …'}`; notes are `seqio.metrics.Text`.

  Example:
    >>> found = bleurt(['A day.'], ['A day.'])
    >>> isinstance(found['bleurt_signature'], seqio.metrics.Text)
    True
  """
  path = checkpoint()
  missing = reason(path)
  if missing:
    return {'bleurt_signature': seqio.metrics.Text(f'not computed: {missing}')}
  scores = _scorer(path).score(
    references=[t if isinstance(t, str) else t[0] for t in targets],
    candidates=list(predictions),
  )
  name = os.path.basename(os.path.normpath(path))
  return {
    'bleurt': 100.0 * sum(scores) / len(scores),
    'bleurt_signature': seqio.metrics.Text(f'checkpoint:{name}|ref:first'),
  }


def reason(path: str) -> str:
  """Returns why BLEURT cannot be computed, '' if it can.

  Args:
    path: of the checkpoint.

  Returns:
    A reason in words, or ''.

  Example:
    >>> 'BLEURT_CHECKPOINT' in reason('') or 'not installed' in reason('')
    True
  """
  if importlib.util.find_spec('bleurt') is None:
    return 'the package bleurt is not installed'
  if not path:
    return f'no checkpoint is named; set {_VARIABLE} to the path of BLEURT-20'
  if not os.path.isdir(path):
    return f'the checkpoint {path!r} is no directory'
  return ''


@functools.cache
def _scorer(path: str) -> Any:
  # By name: the package is not among our dependencies.
  return importlib.import_module('bleurt.score').BleurtScorer(path)
