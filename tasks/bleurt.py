"""BLEURT, if the user has installed its package and a checkpoint.

The paper reports BLEURT-20 against reference A. The package is not on PyPI:
`pip install git+https://github.com/google-research/bleurt`; the checkpoint is
a download of its own (BLEURT-20.zip). Without either, the report says which is
missing.

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
  """Returns the directory of the checkpoint in use, '' if none is named.

  Args:
    path: bound by gin; '' for that in the environment variable
      BLEURT_CHECKPOINT.

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
  """Returns the mean BLEURT of predictions, or why it cannot be computed.

  Args:
    targets: one or several reference texts for every prediction; only the
      first counts.
    predictions: texts.

  Returns:
    `{'bleurt': percent, 'bleurt_signature': the checkpoint's name}`, or
    `{'bleurt_signature': 'not computed: …'}`; signatures are
    `seqio.metrics.Text`.

  Example:
    >>> scores = bleurt(['A day.'], ['A day.'])
    >>> isinstance(scores['bleurt_signature'], seqio.metrics.Text)
    True
  """
  path = checkpoint()
  obstacle = why_unavailable(path)
  if obstacle:
    return {'bleurt_signature': seqio.metrics.Text(f'not computed: {obstacle}')}
  scores = _scorer(path).score(
    references=[t if isinstance(t, str) else t[0] for t in targets],
    candidates=list(predictions),
  )
  name = os.path.basename(os.path.normpath(path))
  return {
    'bleurt': 100.0 * sum(scores) / len(scores),
    'bleurt_signature': seqio.metrics.Text(f'checkpoint:{name}|ref:first'),
  }


def why_unavailable(path: str) -> str:
  """Returns why BLEURT cannot be computed, '' if it can.

  Args:
    path: directory of the checkpoint, '' for none.

  Returns:
    The reason in words, or ''.

  Example:
    >>> reason = why_unavailable('')
    >>> 'BLEURT_CHECKPOINT' in reason or 'not installed' in reason
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
  # Imported by name, because the package is not among our dependencies.
  return importlib.import_module('bleurt.score').BleurtScorer(path)
