"""Two processes read one seed, each its part."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from dst_t5x import seeds
from dst_t5x.arrays import fingerprints, paths
from dst_t5x.seeds import conversion

SCRIPT = pathlib.Path(__file__).with_name('read_in_processes.py')


def run_two(location):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  env = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': '--xla_force_host_platform_device_count=2',
  }
  running = [
    subprocess.Popen(
      [sys.executable, str(SCRIPT), str(port), str(i), location],
      env=env,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  found = []
  try:
    for process in running:
      out, err = process.communicate(timeout=240)
      assert process.returncode == 0, err[-2000:]
      found.append(json.loads(out))
  finally:
    for process in running:
      process.kill()
      process.wait()
  return found


@pytest.mark.parametrize('layout', ['t5x', 'orbax'])
def test_two_processes_share_a_seed(tmp_path, params, layout):
  flat = paths.flatten(params)
  # JSON has no NaN that compares.
  flat['decoder/decoder_norm/scale'][:] = np.arange(8)
  where = conversion.write(layout, params, tmp_path / 'checkpoint_0')
  found = run_two(where)
  digests = {}
  for one in found:
    assert one['processes'] == 2
    for name, (dtype, shape, sha256) in one['digests'].items():
      digests[name] = fingerprints.TensorDigest(dtype, tuple(shape), sha256)
  assert fingerprints.combine(digests) == seeds.fingerprint(params)
  for index, one in enumerate(found):
    first = sorted(flat)[index]
    np.testing.assert_array_equal(one['host'], flat[first])
    for name, parts in one['parts'].items():
      assert len(parts) == 2
      for bounds, content in parts:
        at = tuple(slice(*bound) for bound in bounds)
        np.testing.assert_array_equal(content, flat[name][at])
        if len(bounds) == 2:
          half = flat[name].shape[0] // 2
          assert bounds[0] == [index * half, index * half + half]
