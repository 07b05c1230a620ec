"""What a delta checkpoint says about itself.

T5X's checkpoint manager writes arrays and nothing else, so this is JSON in an
array of bytes. It is fixed when a run begins; a run that resumes makes its own,
and `resume_checks` compares the two.
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
from dst_t5x.core.silos import Placement, Silos

FORMAT = 'dst_t5x.delta_checkpoint'
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
  learning_rate: float | None = None,
  rate_by_default: bool = False,
  optimizer: Mapping[str, Any] | None = None,
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
    learning_rate: its base, before any schedule; None if nobody knows it.
    rate_by_default: whether the rule of `core.rates` chose it.
    optimizer: name and settings of the inner optimizer, of JSON types; None if
      nobody knows them.

  Returns:
    A dict of JSON types. Under 'silos' are name, budget and parts of every
    silo, and of a part the parameter's path, which slice of it, and the axis of
    the slices; the last two are None for a whole tensor.
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
    'learning_rate': learning_rate,
    'rate_by_default': rate_by_default,
    'optimizer': None if optimizer is None else dict(optimizer),
    'parameters': {
      path: [np.dtype(leaf.dtype).name, list(leaf.shape)]
      for path, leaf in named_leaves(params).items()
    },
    'silos': [
      [name, k, [list(part) for part in parts]]
      for name, k, parts in zip(
        plan.silos.names,
        plan.budgets,
        packing.silo_parts(plan.silos),
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


def shape(manifest: Mapping[str, Any]) -> jax.ShapeDtypeStruct:
  """Returns shape and dtype of what `to_bytes` returns."""
  return jax.ShapeDtypeStruct((len(to_bytes(manifest)),), np.uint8)


def from_bytes(array: Any, origin: str) -> dict[str, Any]:
  """Returns the manifest in an array of bytes.

  Args:
    array: uint8[n].
    origin: the checkpoint, for the error.

  Returns:
    The manifest.

  Raises:
    ManifestError: if the bytes are no manifest, or one of a version that this
      release cannot read.
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


def silos_of(manifest: Mapping[str, Any]) -> tuple[Silos, tuple[int, ...]]:
  """Returns the silos that a manifest describes, and their budgets.

  Args:
    manifest: of a checkpoint.

  Returns:
    The silos, and k of each (count).
  """
  by_layer: dict[str, dict[int, int]] = {p: {} for p in manifest['parameters']}
  axes: dict[str, int | None] = {}
  for number, (_, _, parts) in enumerate(manifest['silos']):
    for path, layer, axis in parts:
      by_layer[path][layer or 0] = number
      axes[path] = axis
  # Silos are not in the order of the layers: layers_10 comes before layers_2.
  ids = {
    path: [numbers[layer] for layer in range(len(numbers))]
    for path, numbers in by_layer.items()
  }
  sizes = [0] * len(manifest['silos'])
  for path, numbers in ids.items():
    _, shape = manifest['parameters'][path]
    for number in numbers:
      sizes[number] += int(np.prod(shape, dtype=np.int64)) // len(numbers)
  return (
    Silos(
      tuple(name for name, _, _ in manifest['silos']),
      tuple(sizes),
      {path: Placement(tuple(n), axes[path]) for path, n in ids.items()},
    ),
    tuple(k for _, k, _ in manifest['silos']),
  )


def _described(score: Any) -> Any:
  """Returns a score's name, what it reads and its settings; None for none."""
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
