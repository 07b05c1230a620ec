"""How large a file is, and how much memory it takes to read one."""

import math
import tracemalloc

import numpy as np
import pytest

from dst_t5x import delta as delta_lib
from dst_t5x.delta.file import container
from tests.delta.file.example_deltas import (
  GOLDEN,
  make_entry,
  make_info,
  uniform_delta,
)


def test_differences_are_a_sixth_smaller_than_the_bound_plus_raw_values(
  tmp_path,
):
  # Values that fine-tuning moved by about a percent.
  rng = np.random.default_rng(0)
  seed = {'a': 0.05 * rng.standard_normal(1_000_000).astype(np.float32)}
  step = 1e-3 * rng.standard_normal(1_000_000).astype(np.float32)
  chosen = np.argsort(-np.abs(seed['a'] * step))[:10_000]
  tuned = {'a': seed['a'].copy()}
  tuned['a'][chosen] += step[chosen]
  delta = delta_lib.diff(seed, tuned)
  file = tmp_path / 'a.safetensors'
  gamma = math.lgamma
  bound = (gamma(1e6 + 1) - gamma(1e4 + 1) - gamma(1e6 - 1e4 + 1)) / math.log(2)
  assert container.write(delta, file) < 1.03 * (bound / 8 + 40_000)
  assert container.write(delta, file, seed=seed) < 0.85 * (bound / 8 + 40_000)
  assert container.read(file, seed=seed) == delta


def test_overhead_is_within_4_kb_and_100_bytes_a_tensor(tmp_path):
  # Names and shapes of T5 1.1 large.
  kernels = {
    'attention/query': (1024, 1024),
    'encoder_decoder_attention/query': (1024, 1024),
    'encoder_decoder_attention/value': (1024, 1024),
    'mlp/wi_0': (1024, 2816),
    'mlp/wo': (2816, 1024),
  }
  entries = {
    f'decoder/layers_{i}/{name}/kernel': make_entry(
      np.float32, shape, [7, 2000], [1, 2]
    )
    for i in range(24)
    for name, shape in kernels.items()
  }
  file = tmp_path / 'a.safetensors'
  container.write(delta_lib.SubsetDelta(entries, make_info()), file)
  sizes = container.sections(file)
  content = sizes.pop('positions') + sizes.pop('values.float32')
  assert sum(sizes.values()) + content == file.stat().st_size
  assert sum(sizes.values()) <= 4096 + 100 * len(entries)
  assert container.sections(GOLDEN / 'mixed_v1.0.safetensors').keys() == {
    *'header values.float32 values.float16 values.bfloat16'.split(),
    *'values.int32 parameters positions sha256'.split(),
  }


@pytest.mark.parametrize(
  ('n', 'k'), [(10**7, 400_000), (3 * 10**6, 300_000), (10**7, 100_000)]
)
def test_reading_takes_no_more_than_four_times_the_file(tmp_path, n, k):
  file = tmp_path / 'a.safetensors'
  size = container.write(uniform_delta(n, k), file)
  container.read(file)
  tracemalloc.start()
  try:
    container.read(file)
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  # Work space does not grow with the file.
  assert peak <= 4 * size + 2**20
