"""What a delta checkpoint says about itself, and whether a run may go on.

T5X's checkpoint manager writes arrays and nothing else, so this is JSON in an
array of bytes. It is fixed when a run begins; a run that resumes makes its own
and compares.
"""

import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from dst_t5x.arrays.paths import named_leaves
from dst_t5x.checkpoint import packing
from dst_t5x.core import plans
from dst_t5x.core.methods import SiloScheme

FORMAT = 'dst_t5x.checkpoint.delta_checkpoint'
VERSION = 1


class ManifestError(ValueError):
  """A checkpoint that this run must not go on from, or cannot read."""


def make(
  plan: plans.Plan,
  params: Any,
  *,
  epsilon: float | None,
  silo_scheme: SiloScheme | None,
  inner_state: str,
  keep_first: bool,
  seed: Mapping[str, Any],
) -> dict[str, Any]:
  """Returns the manifest of a run.

  Args:
    plan: of the run.
    params: arrays or shapes.
    epsilon: as it was given.
    silo_scheme: as it was given; None for the method's own.
    inner_state: 'full' or 'none'.
    keep_first: whether the first subset is kept.
    seed: its location, layout, fingerprint and step.

  Returns:
    A dict of JSON types.
  """
  method = plan.method
  scheme = method.silos if silo_scheme is None else silo_scheme
  return {
    'format': FORMAT,
    'version': VERSION,
    'dst_t5x': importlib.metadata.version('dst_t5x'),
    'method': {
      'name': method.name,
      'score': _described(method.score),
      'keep': method.schedule.keep,
      'steps': method.schedule.steps,
      'mask_gradients': method.mask_gradients,
      'pattern': method.pattern,
    },
    'epsilon': epsilon,
    'budget': plan.budget,
    'silo_rule': scheme if isinstance(scheme, str) else json.dumps(scheme),
    'inner_state': inner_state,
    'keep_first': keep_first,
    'seed': dict(seed),
    'parameters': {
      path: [np.dtype(leaf.dtype).name, list(leaf.shape)]
      for path, leaf in named_leaves(params).items()
    },
    'silos': [
      [name, k, [list(entry) for entry in inside]]
      for name, k, inside in zip(
        plan.silos.names,
        plan.budgets,
        packing.entries(plan.silos),
        strict=True,
      )
    ],
  }


def to_bytes(manifest: Mapping[str, Any]) -> np.ndarray:
  """Returns a manifest as uint8[n].

  Example:
    >>> to_bytes({'a': 1}).shape
    (7,)
  """
  text = json.dumps(manifest, separators=(',', ':'), allow_nan=False)
  return np.frombuffer(text.encode(), np.uint8)


def from_bytes(array: Any, origin: str) -> dict[str, Any]:
  """Returns the manifest in an array of bytes.

  Args:
    array: uint8[n].
    origin: the checkpoint, for the error.

  Returns:
    The manifest.

  Raises:
    ManifestError: if it is none, or of a version that this release cannot
      read.
  """
  try:
    manifest = json.loads(np.asarray(array).astype(np.uint8).tobytes())
    kind, version = manifest['format'], manifest['version']
  except (ValueError, KeyError, TypeError) as error:
    raise ManifestError(
      f'{origin}: its manifest is damaged ({error})'
    ) from error
  if kind != FORMAT or version != VERSION:
    raise ManifestError(
      f'{origin} has the format {kind!r}, version {version!r}; this release '
      f'reads {FORMAT!r}, version {VERSION}'
    )
  return manifest


def check_same(
  mine: Mapping[str, Any], theirs: Mapping[str, Any], origin: str
) -> None:
  """Raises if a run may not resume from a checkpoint.

  Args:
    mine: the run's manifest.
    theirs: the checkpoint's.
    origin: the checkpoint, for the error.

  Raises:
    ManifestError: naming what differs and both values.
  """
  problems = [
    f'{name}: {theirs.get(key)!r} there, {mine[key]!r} here'
    for key, name in (
      ('epsilon', 'EPSILON'),
      ('budget', 'budget (count)'),
      ('silo_rule', 'silos'),
      ('inner_state', 'inner_state'),
      ('keep_first', 'keep_first'),
    )
    if theirs.get(key) != mine[key]
  ]
  for key, value in mine['method'].items():
    other = theirs['method'].get(key)
    if other != value:
      problems.append(f"the method's {key}: {other!r} there, {value!r} here")
  if theirs['seed'].get('fingerprint') != mine['seed']['fingerprint']:
    problems.append(f'the seed: {_seed(theirs)} there, {_seed(mine)} here')
  if not problems:
    problems += _tree_differences(mine, theirs)
  if problems:
    raise ManifestError(
      f'{origin} belongs to another run; it differs in\n  '
      + '\n  '.join(problems)
      + '\nResume with the same settings, or start with an empty MODEL_DIR'
    )


def _tree_differences(
  mine: Mapping[str, Any], theirs: Mapping[str, Any]
) -> list[str]:
  own, other = mine['parameters'], theirs['parameters']
  problems = [
    f'parameter {path!r}: {other.get(path, "absent")} there, '
    f'{own.get(path, "absent")} here'
    for path in sorted(set(own) | set(other))
    if own.get(path) != other.get(path)
  ]
  if not problems and mine['silos'] != theirs['silos']:
    problems.append('the silos and their budgets')
  return problems[:8]


def _seed(manifest: Mapping[str, Any]) -> str:
  seed = manifest['seed']
  return f'{seed.get("location")} ({str(seed.get("fingerprint"))[:19]}…)'


def _described(score: Any) -> Any:
  if score is None:
    return None
  fn = score.fn
  settings = getattr(fn, 'keywords', {})
  name = getattr(getattr(fn, 'func', fn), '__name__', repr(fn))
  return [
    name,
    *score.reads,
    *(f'{k}={v}' for k, v in sorted(settings.items())),
  ]


def shape(manifest: Mapping[str, Any]) -> jax.ShapeDtypeStruct:
  """Returns shape and dtype of what `to_bytes` returns."""
  return jax.ShapeDtypeStruct((len(to_bytes(manifest)),), np.uint8)
