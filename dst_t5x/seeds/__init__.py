"""Seeds: the parameters that fine-tuning starts from and deltas refer to."""

from dst_t5x.arrays.source import Source
from dst_t5x.seeds.errors import SeedError
from dst_t5x.seeds.seed import (
  BUNDLED,
  Seed,
  ShapeAndDtype,
  bundled_path,
  check_params,
  fingerprint,
  open_source,
  read,
  write,
)

__all__ = [
  'BUNDLED',
  'Seed',
  'SeedError',
  'ShapeAndDtype',
  'Source',
  'bundled_path',
  'check_params',
  'fingerprint',
  'open_source',
  'read',
  'write',
]
