"""How small a delta file is, and how fast its positions are coded.

Claims: positions take at most 1.01 times the entropy bound log2 C(n, k) for
epsilon >= 1e-4 and 1.05 times below; a file adds at most 4 kB and 100 bytes a
tensor; values coded against the seed bring a file of 7,000 positions or more at
least 15 % below bound plus raw values (with fewer, the hashes and the table of
parameters, 3 kB for 77 M, weigh more than that); coding and decoding run at 20
million positions a second.

Parameters have the names and shapes of T5 1.1 small (77 M) and XXL (11 B). No
array of that size is made: positions are drawn uniformly in every tensor, as
many as largest remainder gives it. Values stand in for fine-tuned ones: normal
with standard deviation 0.05, moved by a relative 1 % (log-normal, sigma 1).

Usage: python benchmarks/delta_size.py [--json PATH] [--full]
"""

import argparse
import json
import math
import pathlib
import tempfile
import time
from typing import Any

import numpy as np
import safetensors.numpy

from dst_t5x import delta as delta_lib
from dst_t5x.core.budgets import allocate
from dst_t5x.delta.file import container, numbers, value_differences

HASH = 'sha256:' + 64 * '0'
# (embedding, MLP, heads × head size, layers) of T5 1.1.
SIZES = {
  'small': (512, 1024, 384, 8),
  'xxl': (4096, 10240, 4096, 24),
}
QUICK = {
  'small': (1e-6, 1e-5, 1e-4, 1e-3, 1e-2),
  'xxl': (1e-6, 1e-5, 1e-4),
}
FULL = {
  'small': (*QUICK['small'], 7.5e-3, 0.1),
  'xxl': (*QUICK['xxl'], 1e-3, 1e-2),
}


def shapes(size: str) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of T5 1.1 by path, as T5X names them (minimal T5)."""
  emb, mlp, heads, layers = SIZES[size]
  parameters: dict[str, tuple[int, ...]] = {
    'token_embedder/embedding': (32128, emb),
    'decoder/logits_dense/kernel': (emb, 32128),
  }
  for side in ('encoder', 'decoder'):
    parameters[f'{side}/relpos_bias/rel_embedding'] = (heads // 64, 32)
    parameters[f'{side}/{side}_norm/scale'] = (emb,)
    kinds = ['attention'] if side == 'encoder' else []
    if side == 'decoder':
      kinds = ['self_attention', 'encoder_decoder_attention']
    for i in range(layers):
      layer = f'{side}/layers_{i}'
      for kind in kinds:
        for name in ('query', 'key', 'value'):
          parameters[f'{layer}/{kind}/{name}/kernel'] = (emb, heads)
        parameters[f'{layer}/{kind}/out/kernel'] = (heads, emb)
        parameters[f'{layer}/pre_{kind}_layer_norm/scale'] = (emb,)
      parameters[f'{layer}/pre_mlp_layer_norm/scale'] = (emb,)
      parameters[f'{layer}/mlp/wi_0/kernel'] = (emb, mlp)
      parameters[f'{layer}/mlp/wi_1/kernel'] = (emb, mlp)
      parameters[f'{layer}/mlp/wo/kernel'] = (mlp, emb)
  return dict(sorted(parameters.items()))


def draw(n: int, k: int, rng: np.random.Generator) -> np.ndarray:
  """Draws k of n positions, sorted; takes no array of n unless k is near it."""
  if 4 * k > n:
    return np.sort(rng.permutation(n)[:k])
  drawn = np.empty(0, np.int64)
  while drawn.size < k:
    drawn = np.unique(np.append(drawn, rng.integers(0, n, k - drawn.size)))
  return drawn


def make(size: str, epsilon: float) -> tuple[delta_lib.SubsetDelta, np.ndarray]:
  """Makes a delta, and the seed's values at its positions."""
  rng = np.random.default_rng(0)
  parameters = shapes(size)
  counts = allocate(
    [math.prod(shape) for shape in parameters.values()], epsilon=epsilon
  )
  seeds, entries = [], {}
  for (path, shape), k in zip(parameters.items(), counts, strict=True):
    seed = 0.05 * rng.standard_normal(k).astype(np.float32)
    moved = 0.01 * rng.lognormal(size=k) * rng.choice([-1.0, 1.0], k)
    entries[path] = delta_lib.DeltaEntry(
      shape,
      np.dtype(np.float32),
      draw(math.prod(shape), k, rng),
      (seed * (1 + moved)).astype(np.float32),
    )
    seeds.append(seed)
  info = delta_lib.DeltaInfo(
    'dst', epsilon, None, 'module_and_layer', 1000, HASH, HASH, HASH
  )
  return delta_lib.SubsetDelta(entries, info), np.concatenate(seeds)


def entropy_bound(n: int, k: int) -> float:
  """Returns log2 C(n, k) (bits)."""
  gamma = math.lgamma
  return (gamma(n + 1) - gamma(k + 1) - gamma(n - k + 1)) / math.log(2)


def other_formats(delta: delta_lib.SubsetDelta) -> dict[str, int]:
  """Returns the size of the same delta in formats that others use (bytes)."""
  flat, shira = {}, {}
  for path, entry in delta.entries.items():
    if entry.size:
      flat[f'{path}.indices'] = entry.positions.astype(np.int32)
      flat[f'{path}.values'] = entry.values
      rows, columns = np.divmod(entry.positions, entry.shape[-1])
      shira[f'{path}.shira_indices'] = np.stack([rows, columns]).astype(
        np.int32
      )
      shira[f'{path}.shira_weight'] = entry.values
  return {
    # Two int32 and a float64 for each value, nothing else.
    'coo': 16 * delta.size,
    'int32_value': len(safetensors.numpy.save(flat)),
    'shira': len(safetensors.numpy.save(shira)),
  }


def speed(work: Any, count: int) -> float:
  """Returns the best of five runs (millions a second of processor time)."""
  best = math.inf
  for _ in range(5):
    start = time.process_time()
    work()
    best = min(best, time.process_time() - start)
  return count / best / 1e6 if best else math.inf


def measure(size: str, epsilon: float) -> dict[str, Any]:
  """Returns sizes and speeds for one model and one density."""
  delta, seeds = make(size, epsilon)
  n = sum(math.prod(entry.shape) for entry in delta.entries.values())
  k = delta.size
  with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder, 'delta.safetensors')
    total = container.write(delta, file)
    if container.read(file) != delta:
      raise RuntimeError(f'{size} {epsilon}: the file does not read back')
    parts = container.sections(file)
  values = np.concatenate([entry.values for entry in delta.entries.values()])
  coded = value_differences.encode(values, seeds)
  raw = parts['values.float32']
  coded_total = total - raw + (raw if coded is None else len(coded))
  overhead = total - raw - parts['positions']
  bound = entropy_bound(n, k)
  placed, offset = [np.full(1, -1)], 0
  for entry in delta.entries.values():
    placed.append(entry.positions + offset)
    offset += math.prod(entry.shape)
  steps = np.diff(np.concatenate(placed))
  code = numbers.encode(steps)
  return {
    'model': size,
    'parameters': n,
    'tensors': len(delta.entries),
    'epsilon': epsilon,
    'positions': k,
    'file_bytes': total,
    'bytes_per_position': total / k,
    'position_bits': 8 * parts['positions'] / k,
    'position_bits_over_bound': 8 * parts['positions'] / bound,
    'content_over_bound': (total - overhead) / (bound / 8 + raw),
    'overhead_bytes': overhead,
    'overhead_over_allowed': overhead / (4096 + 100 * len(delta.entries)),
    'differences_over_bound_and_raw': coded_total / (bound / 8 + raw),
    'size_over': {
      name: total / bytes_ for name, bytes_ in other_formats(delta).items()
    },
    'encode_million_per_s': speed(lambda: numbers.encode(steps), k),
    'decode_million_per_s': speed(lambda: numbers.decode(code, k), k),
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
  parser.add_argument('--json', type=pathlib.Path, metavar='PATH')
  parser.add_argument(
    '--full', action='store_true', help='more densities; some minutes'
  )
  arguments = parser.parse_args()
  print(
    'model      ε         k  B/position  positions/bound  coded/(bound+raw)'
    '  of COO  of int32+value  of SHiRA  overhead/allowed  enc  dec (M/s)'
  )
  rows = []
  for size, densities in (FULL if arguments.full else QUICK).items():
    for epsilon in densities:
      row = measure(size, epsilon)
      rows.append(row)
      print(
        f'{size:5} {epsilon:7.2g} {row["positions"]:9d}'
        f' {row["bytes_per_position"]:11.2f}'
        f' {row["position_bits_over_bound"]:16.4f}'
        f' {row["differences_over_bound_and_raw"]:18.3f}'
        f' {row["size_over"]["coo"]:7.3f}'
        f' {row["size_over"]["int32_value"]:15.3f}'
        f' {row["size_over"]["shira"]:9.3f}'
        f' {row["overhead_over_allowed"]:17.2f}'
        f' {row["encode_million_per_s"]:4.0f}'
        f' {row["decode_million_per_s"]:4.0f}',
        flush=True,
      )
  if arguments.json:
    arguments.json.write_text(json.dumps(rows, indent=2) + '\n')


if __name__ == '__main__':
  main()
