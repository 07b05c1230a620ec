"""Reads a seed in one of two processes, and prints what it got.

Arguments: port, index of the process, location of the seed.
"""

import json
import sys

import jax
import numpy as np

from dst_t5x import seeds


def main(port: str, index: str, location: str) -> None:
  jax.distributed.initialize(f'127.0.0.1:{port}', 2, int(index))
  source = seeds.open_source(location)
  mesh = jax.make_mesh((2, 2), ('data', 'model'))
  specs = source.specs()
  shardings = {
    name: jax.NamedSharding(
      mesh,
      # The first axis over the processes: each reads its half.
      jax.P('data', 'model') if len(spec.shape) == 2 else jax.P(),
    )
    for name, spec in specs.items()
  }
  parts = {}
  for name, array in source.read(shardings).items():
    assert array.shape == specs[name].shape and array.sharding.mesh == mesh
    parts[name] = [
      [[[s.start, s.stop] for s in shard.index], shard.data.tolist()]
      for shard in array.addressable_shards
    ]
  mine = sorted(specs)[int(index) :: 2]
  print(
    json.dumps(
      {
        'processes': jax.process_count(),
        'parts': parts,
        'digests': source.digests(mine),
        'host': np.asarray(source.read(names=mine[:1])[mine[0]]).tolist(),
      }
    )
  )


if __name__ == '__main__':
  main(*sys.argv[1:])
