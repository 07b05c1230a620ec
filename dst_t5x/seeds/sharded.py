"""The seed of a run on many devices: opened, recognised and read sharded.

T5X's optimizers see randomly initialised parameters first and restored ones
later. So the seed is always read from its own checkpoint, never taken from what
an optimizer is given to begin with.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from dst_t5x import seeds
from dst_t5x.arrays import fingerprints, paths
from dst_t5x.arrays.source import Source
from dst_t5x.seeds import folders

LoadSeed = Callable[[], dict[str, jax.Array]]


def open_source(path: Any, *, macro: str) -> Source:
  """Opens a seed.

  Args:
    path: of a checkpoint, or 'bundled'.
    macro: name of what gave the path, such as a gin macro, for the error.

  Returns:
    The opened seed.

  Raises:
    SeedError: if it cannot be read.
  """
  if not isinstance(path, str) or not path:
    raise seeds.SeedError(
      f'{macro}={path!r} must be the path of the seed: a checkpoint of T5X or '
      "Orbax, Hugging Face's, or our own"
    )
  try:
    return seeds.open_source(absolute(path))
  except seeds.SeedError as error:
    raise seeds.SeedError(f'{macro}: {error}') from error


def absolute(path: str) -> str:
  """Returns a path that means the same from another directory.

  Example:
    >>> absolute('bundled'), absolute('gs://bucket/t5')
    ('bundled', 'gs://bucket/t5')
  """
  if path == seeds.BUNDLED or folders.is_remote(path):
    return path
  return os.path.abspath(path)


def fingerprint(source: Source) -> str:
  """Returns a seed's fingerprint; the processes of a run share the work.

  Args:
    source: the opened seed.

  Returns:
    'sha256:' and 64 hex digits, the same in every process.
  """
  specs = source.specs()
  names = sorted(specs)
  processes, me = jax.process_count(), jax.process_index()
  digests = source.digests(names[me::processes])
  if processes > 1:
    table = np.zeros((len(names), 32), np.uint8)
    for row, name in enumerate(names):
      if name in digests:
        table[row] = np.frombuffer(
          bytes.fromhex(digests[name].sha256), np.uint8
        )
    # Each row was filled by one process alone.
    table = np.asarray(multihost_utils.process_allgather(table)).sum(axis=0)
    digests = {
      name: fingerprints.TensorDigest(
        np.dtype(specs[name].dtype).name,
        tuple(specs[name].shape),
        table[row].astype(np.uint8).tobytes().hex(),
      )
      for row, name in enumerate(names)
    }
  return fingerprints.combine(digests)


def check(source: Source, shapes: Mapping[str, Any]) -> None:
  """Raises unless a seed has the names, shapes and dtypes of the model.

  Args:
    source: the opened seed.
    shapes: of the model's parameters, by path.

  Raises:
    SeedError: naming every difference.
  """
  seeds.check_params(
    paths.unflatten(source.specs()),
    shapes,
    origin=f'the seed {source.location}',
  )


def load(
  source: Source, shardings: Mapping[str, jax.sharding.Sharding]
) -> dict[str, jax.Array]:
  """Reads the seed; each process reads what its devices hold.

  Args:
    source: the opened seed.
    shardings: where every parameter goes, by path.

  Returns:
    Arrays by path.
  """
  logging.info(
    'Reading the seed from %s (%s, step %s).',
    source.location,
    source.layout,
    source.step,
  )
  return source.read(shardings)
