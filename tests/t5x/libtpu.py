"""TPU's compiler, which needs no TPU, where it is installed."""

import importlib.util
import os

import pytest

# A folder that holds libtpu, where JAX is not to find it otherwise: with it
# installed, JAX takes the machine for one with a TPU.
FOLDER = os.environ.get('DST_T5X_LIBTPU')

needed = pytest.mark.skipif(
  FOLDER is None and importlib.util.find_spec('libtpu') is None,
  reason='libtpu is neither installed (extra tpu) nor in DST_T5X_LIBTPU',
)


def environment() -> dict[str, str]:
  """What a process needs to find it."""
  return {
    **({'PYTHONPATH': FOLDER} if FOLDER else {}),
    'TPU_SKIP_MDS_QUERY': '1',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'TPU_ACCELERATOR_TYPE': 'v5e-16',
    'TPU_WORKER_HOSTNAMES': 'localhost',
  }
