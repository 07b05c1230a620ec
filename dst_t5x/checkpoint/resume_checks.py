"""Whether a run may go on from a delta checkpoint.

The manifests are compared, and then the shapes of what was read: Orbax reads an
array as it was saved, whatever shape the run expects.
"""

from collections.abc import Mapping
from typing import Any

from dst_t5x.checkpoint.manifest import ManifestError
from dst_t5x.core import methods

# Fields of a manifest, and what a user sets them by.
_SETTINGS = (
  ('epsilon', 'EPSILON'),
  ('budget', 'BUDGET (as a count)'),
  ('silo_rule', 'SILOS'),
  ('inner_state', 'INNER_STATE'),
  ('keep_first', 'TRACK_OVERLAP'),
)
_INNER = 'state/inner'


def check_same(
  run: Mapping[str, Any], saved: Mapping[str, Any], origin: str
) -> None:
  """Raises if a run may not resume from a checkpoint.

  Args:
    run: the run's manifest.
    saved: the checkpoint's.
    origin: the checkpoint, for the error.

  Raises:
    ManifestError: naming what differs and both values.
  """
  problems = [
    f'{name}: {saved.get(field)!r} there, {run[field]!r} here'
    for field, name in _SETTINGS
    if saved.get(field) != run[field]
  ]
  saved_method = methods.under_its_present_name(saved['method'])
  for field, value in run['method'].items():
    other = saved_method.get(field)
    if other != value:
      problems.append(f"METHOD's {field}: {other!r} there, {value!r} here")
  if saved['seed'].get('fingerprint') != run['seed']['fingerprint']:
    problems.append(
      f'INITIAL_CHECKPOINT_PATH (the seed): {_seed(saved)} there, '
      f'{_seed(run)} here'
    )
  problems += _rate_differences(run, saved)
  problems += _optimizer_differences(run, saved)
  if not problems:
    problems += _tree_differences(run, saved)
  if problems:
    raise ManifestError(
      f'{origin} belongs to another run; it differs in\n  '
      + '\n  '.join(problems)
      + '\nResume with the same settings, or start with an empty MODEL_DIR'
    )


def check_inner_state(
  expected: Mapping[str, Any], saved: Mapping[str, Any], origin: str
) -> None:
  """Raises if a checkpoint holds the state of another inner optimizer.

  Args:
    expected: shapes of the run's arrays, by their path in a checkpoint.
    saved: shapes of the checkpoint's, by path.
    origin: the checkpoint, for the error.

  Raises:
    ManifestError: naming some of the paths that differ.
  """
  own, other = (
    {p: tuple(x.shape) for p, x in arrays.items() if p.startswith(_INNER)}
    for arrays in (expected, saved)
  )
  problems = [
    f'{path}: {other.get(path, "absent")} there, {own.get(path, "absent")} here'
    for path in sorted(set(own) | set(other))
    if own.get(path) != other.get(path)
  ]
  if problems:
    raise ManifestError(
      f'{origin} holds the state of another inner optimizer than OPTIMIZER; '
      'of its arrays, these differ:\n  '
      + '\n  '.join(problems[:4])
      + (f'\n  and {len(problems) - 4} more' if len(problems) > 4 else '')
      + '\nResume with the OPTIMIZER that the run began with, or start with an '
      'empty MODEL_DIR'
    )


def check_arrays(
  expected: Mapping[str, Any], arrays: Mapping[str, Any], origin: str
) -> None:
  """Raises if what was read has not the shapes of what is expected.

  Args:
    expected: shapes by path.
    arrays: what was read, by path.
    origin: where it was read, for the error.

  Raises:
    ManifestError: naming some of the arrays that differ.

  Example:
    >>> import numpy as np
    >>> check_arrays({'a': np.ones(2)}, {'a': np.ones(2), 'b': 0}, 'a dict')
  """
  problems = [
    f'{path}: '
    + (str(tuple(arrays[path].shape)) if path in arrays else 'absent')
    + f' there, {tuple(x.shape)} here'
    for path, x in expected.items()
    if path not in arrays or tuple(arrays[path].shape) != tuple(x.shape)
  ]
  if problems:
    raise ManifestError(
      f'{origin} does not fit this run: {len(problems)} of its arrays have '
      'other shapes, such as\n  '
      + '\n  '.join(problems[:4])
      + '\nResume the run that wrote it, or start with an empty MODEL_DIR'
    )


def _rate_differences(
  run: Mapping[str, Any], saved: Mapping[str, Any]
) -> list[str]:
  """Returns how a rate that nobody gave differs from what the run had.

  A user may resume at another rate; a new release must not do it unasked.
  """
  before, now = saved.get('learning_rate'), run['learning_rate']
  if not run['rate_by_default'] or before == now:
    return []
  before = 'not recorded' if before is None else before
  return [
    f'LEARNING_RATE: {before} there, {now} here, the '
    "default of this release; give LEARNING_RATE, for example the run's old "
    'rate'
  ]


def _optimizer_differences(
  run: Mapping[str, Any], saved: Mapping[str, Any]
) -> list[str]:
  """Returns how the inner optimizers differ, where both are recorded.

  A resume of weights alone begins with a new optimizer, which may be another.
  """
  own, other = run.get('optimizer'), saved.get('optimizer')
  if not own or not other or run['inner_state'] == 'none':
    return []
  if own['name'] != other['name']:
    return [f'OPTIMIZER: {other["name"]} there, {own["name"]} here']
  # A setting that one release alone knows tells nothing.
  return [
    f'OPTIMIZER ({own["name"]}.{name}): {other["settings"][name]!r} there, '
    f'{value!r} here'
    for name, value in own['settings'].items()
    if name in other['settings'] and other['settings'][name] != value
  ]


def _tree_differences(
  run: Mapping[str, Any], saved: Mapping[str, Any]
) -> list[str]:
  """Returns how parameters and silos differ, at most eight of them."""
  own, other = run['parameters'], saved['parameters']
  problems = [
    f'parameter {path!r}: {other.get(path, "absent")} there, '
    f'{own.get(path, "absent")} here'
    for path in sorted(set(own) | set(other))
    if own.get(path) != other.get(path)
  ]
  if problems or run['silos'] == saved['silos']:
    return problems[:8]
  now, before = [[name for name, _, _ in m['silos']] for m in (run, saved)]
  if now == before:
    return ['the budgets or the parts of the silos']
  return [
    f'the silos: {len(before)} there and {len(now)} here, for example '
    + ' and '.join(
      next((repr(name) for name in a if name not in b), 'no other name')
      for a, b in ((before, now), (now, before))
    )
  ]


def _seed(manifest: Mapping[str, Any]) -> str:
  seed = manifest['seed']
  return f'{seed.get("location")} ({str(seed.get("fingerprint"))[:19]}…)'
