"""From a delta checkpoint of T5X to a delta, and to whole parameters."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dst_t5x import delta_checkpoint, delta_diff, paths, seeds
from dst_t5x.delta_checkpoint import DeltaCheckpoint
from dst_t5x.delta_types import SubsetDelta, WrongSeedError


class Adapted(NamedTuple):
  """What a delta checkpoint stands for.

  Attributes:
    seed: Θ⁰, nested arrays on the host.
    params: Θ; tensors that did not change are the seed's own arrays.
    delta: what turns one into the other.
    step: in T5X's count, the seed's own steps included.
    config: the network's configuration, if the seed tells.
  """

  seed: Mapping[str, Any]
  params: Mapping[str, Any]
  delta: SubsetDelta
  step: int
  config: Mapping[str, Any] | None


def adapted(checkpoint: DeltaCheckpoint, seed: str | None = None) -> Adapted:
  """Returns what a delta checkpoint stands for, checked against its seed.

  Args:
    checkpoint: opened.
    seed: path of the seed; None for the one that the checkpoint names.

  Returns:
    Seed, parameters and delta.

  Raises:
    SeedError: if the seed cannot be read.
    WrongSeedError: if it is another than the checkpoint's.
    ManifestError: if the checkpoint contradicts itself.
  """
  manifest = checkpoint.manifest
  told = manifest['seed']
  read = seeds.read(seed or told['location'])
  if read.fingerprint != told['fingerprint']:
    raise WrongSeedError(
      f'{checkpoint.location} was trained from the seed {told["location"]} '
      f'with the fingerprint {told["fingerprint"]}; {read.location} has '
      f'{read.fingerprint}'
    )
  flat = paths.flatten(read.params)
  tuned = dict(flat)
  for path, (positions, values) in delta_checkpoint.changed(checkpoint).items():
    if positions.size:
      tuned[path] = np.array(flat[path])
      tuned[path].reshape(-1)[positions] = values
  counts = delta_checkpoint.read(checkpoint, ['state/step', 'state/count'])
  params = paths.unflatten(tuned)
  delta = delta_diff.diff(
    read.params,
    params,
    method=manifest['method']['name'],
    epsilon=manifest['epsilon'],
    budget=manifest['budget'],
    silo_rule=manifest['silo_rule'],
    step=int(counts['state/count']),
  )
  return Adapted(
    read.params, params, delta, int(counts['state/step']), read.config
  )
