"""Delta checkpoints of T5X runs: opened, read, exported and imported.

T5X is needed for none of it. `delta_checkpoint` says what is in a checkpoint.
"""

from dst_t5x.checkpoint.delta_checkpoint import (
  CheckpointBytes,
  DeltaCheckpoint,
  checkpoint_bytes,
  latest,
  must_open,
  open_checkpoint,
  read,
)
from dst_t5x.checkpoint.delta_reading import read_delta
from dst_t5x.checkpoint.exports import (
  Exported,
  TunedModel,
  export_delta,
  load,
)
from dst_t5x.checkpoint.imports import Imported, import_delta
from dst_t5x.checkpoint.manifest import ManifestError

__all__ = [
  'CheckpointBytes',
  'DeltaCheckpoint',
  'Exported',
  'Imported',
  'ManifestError',
  'TunedModel',
  'checkpoint_bytes',
  'export_delta',
  'import_delta',
  'latest',
  'load',
  'must_open',
  'open_checkpoint',
  'read',
  'read_delta',
]
