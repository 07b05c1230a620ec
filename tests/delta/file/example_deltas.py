"""Deltas that the tests of the file share, and the golden files of some."""

import dataclasses
import pathlib

import ml_dtypes
import numpy as np

from dst_t5x import delta as delta_lib

ROOT = pathlib.Path(__file__).resolve().parents[3]
GOLDEN = ROOT / 'tests' / 'golden'
BF16 = ml_dtypes.bfloat16


def make_info(**changes) -> delta_lib.DeltaInfo:
  hashes = [f'sha256:{n:064x}' for n in range(3)]
  base = delta_lib.DeltaInfo('dst', 0.1, None, 'tensor', 12, *hashes)
  return dataclasses.replace(base, **changes)


def make_entry(dtype, shape, positions, words) -> delta_lib.DeltaEntry:
  """An entry with values given as bit patterns."""
  width = np.dtype(dtype).itemsize
  values = np.array(words, f'u{width}').view(dtype)
  return delta_lib.DeltaEntry(shape, np.dtype(dtype), positions, values)


def uniform_delta(n: int, k: int, dtype=np.float32) -> delta_lib.SubsetDelta:
  rng = np.random.default_rng(0)
  positions = np.sort(rng.permutation(n)[:k])
  values = rng.standard_normal(k).astype(dtype)
  entry = delta_lib.DeltaEntry((n,), np.dtype(dtype), positions, values)
  return delta_lib.SubsetDelta({'a': entry}, make_info())


# What the golden files hold. They were written by the version in their names
# and stay as they are; a later version adds its own.
MIXED = delta_lib.SubsetDelta(
  {
    'decoder/kernel': make_entry(
      np.float32,
      (5, 7),
      [0, 1, 20, 34],
      [0x3FC00000, 0x80000000, 0x7FC00123, 0x00000001],
    ),
    'decoder/none': make_entry(np.float32, (0, 3), [], []),
    'encoder/kernel': make_entry(BF16, (2, 2, 2), [3, 7], [0x3F80, 0xFF81]),
    'encoder/wide': make_entry(np.float32, (2**16, 2**17), [2**33 - 1], [1]),
    'größe': make_entry(np.float16, (), [0], [0x7E01]),
    'table': make_entry(np.int32, (4,), [2], [2**32 - 5]),
    'unchanged': make_entry(np.float64, (3,), [], []),
  },
  make_info(epsilon=None, budget=9, method='diff'),
)

STEPS = np.arange(6000) * 37 % 97 + 1
MANY = delta_lib.SubsetDelta(
  {
    'a': make_entry(
      np.int8, (300_000,), np.cumsum(STEPS) - 1, np.arange(6000) % 251
    )
  },
  make_info(epsilon=0.02),
)
SEED = {
  'a': (np.arange(600, dtype=np.float32) - 300) / 8,
  'b': np.arange(600, dtype=np.int32).astype(np.float16).astype(BF16),
}
MOVED = {'a': SEED['a'].copy(), 'b': SEED['b'].copy()}
MOVED['a'].view(np.uint32)[::7] += np.arange(86, dtype=np.uint32) * 3 - 99
MOVED['a'][301:303] = [-0.0, 1e-40]
MOVED['b'].view(np.uint16)[5::9] ^= 1
CODED = delta_lib.diff(SEED, MOVED, method='diff', step=3)
LAYERS = delta_lib.SubsetDelta(
  {
    **{
      f'encoder/layers_{i}/{name}': make_entry(
        np.float32, shape, range(i % 3), [0x3F800000 + i] * (i % 3)
      )
      for i in range(12)
      for name, shape in (('mlp/wi_0', (4, 3)), ('mlp/wi_1', (4, 3)))
    },
    'encoder/layers_0/norm': make_entry(BF16, (4,), [3], [0x8000]),
    'encoder/layers_1/norm': make_entry(BF16, (4,), [], []),
    'encoder/norm': make_entry(BF16, (4,), [0], [0x7F81]),
  },
  make_info(),
)
GOLDENS = {
  'layers_v1.1.safetensors': (LAYERS, None),
  'mixed_v1.0.safetensors': (MIXED, None),
  'many_v1.0.safetensors': (MANY, None),
  'differences_v1.0.safetensors': (CODED, SEED),
}
