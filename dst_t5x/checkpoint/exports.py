"""From a delta file or a delta checkpoint of T5X to whole parameters."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dst_t5x import delta, seeds
from dst_t5x.arrays import paths
from dst_t5x.checkpoint import delta_checkpoint
from dst_t5x.checkpoint.delta_checkpoint import DeltaCheckpoint
from dst_t5x.delta import difference
from dst_t5x.delta.file import container
from dst_t5x.delta.types import DeltaFileError, SubsetDelta, WrongSeedError


class Adapted(NamedTuple):
  """What a delta and its seed stand for.

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


def load(source: str, seed: str | None = None) -> Adapted:
  """Returns what a delta stands for, wherever it is kept.

  Args:
    source: a delta file, or a delta checkpoint of T5X.
    seed: path of the seed; None for the one that a checkpoint names. A file
      names none.

  Returns:
    Seed, parameters and delta.

  Raises:
    SeedError: if the seed cannot be read.
    DeltaError: if the delta cannot be, or is of another seed.
    ManifestError: if there is no checkpoint, or it contradicts itself.
  """
  if not is_file(source):
    return adapted(delta_checkpoint.must_open(source), seed)
  if seed is None:
    raise DeltaFileError(
      f'{source}: a file does not tell where its seed is; give the seed, such '
      'as --seed bundled'
    )
  step = seeds.open_source(seed).step or 0
  read = seeds.read(seed)
  found = container.read(source, seed=read.params)
  params = delta.apply(read.params, found)
  return Adapted(
    read.params, params, found, step + found.info.step, read.config
  )


def is_file(source: str) -> bool:
  """Returns whether a delta is kept in a file, not a checkpoint.

  Args:
    source: path of the delta.

  Returns:
    True for a file, there or not.

  Example:
    >>> is_file('delta.safetensors'), is_file('run/checkpoint_1000')
    (True, False)
  """
  return source.endswith('.safetensors') or os.path.isfile(source)


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
  found = difference.diff(
    read.params,
    params,
    method=manifest['method']['name'],
    epsilon=manifest['epsilon'],
    budget=manifest['budget'],
    silo_rule=manifest['silo_rule'],
    step=int(counts['state/count']),
  )
  return Adapted(
    read.params, params, found, int(counts['state/step']), read.config
  )
