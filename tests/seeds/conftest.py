"""Parameters that the tests of all layouts share."""

from typing import Any

import numpy as np
import pytest

from dst_t5x.arrays import paths
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.seeds.hugging_face import tensor_names

CONFIG = NetworkConfig(
  vocab_size=12,
  emb_dim=8,
  num_heads=2,
  num_encoder_layers=1,
  num_decoder_layers=2,
  head_dim=3,
  mlp_dim=10,
)


@pytest.fixture
def config() -> NetworkConfig:
  """A small network."""
  return CONFIG


@pytest.fixture
def params() -> dict[str, Any]:
  """Its parameters, among them the floats that are easily lost."""
  rng = np.random.default_rng(0)
  flat = {
    path: rng.normal(size=entry.shape).astype(np.float32)
    for path, entry in tensor_names.table(CONFIG).items()
  }
  flat['decoder/decoder_norm/scale'][:4] = [-0.0, np.nan, np.inf, 1e-45]
  flat['encoder/encoder_norm/scale'][:] = 0.0
  return paths.unflatten(flat)
