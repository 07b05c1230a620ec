"""The contracts about imports are kept, and break when an arrow turns round."""

import pathlib
import shutil
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = REPOSITORY / '.ci' / 'lib' / 'import_contracts.py'
ROOMS = 'Arrows point down: a room imports from the rooms below it'
T5X = 'T5X is imported by hooks, and by the planning of its compiled step'
TENSORFLOW = 'TensorFlow and seqio are imported by hosts and tasks alone'
CORE = 'The core imports jax and optax, and no other framework'
CONTRACTS = (ROOMS, T5X, TENSORFLOW, CORE)


def _check(checkout=None):
  run = subprocess.run(
    [sys.executable, str(SCRIPT), *([str(checkout)] if checkout else [])],
    # Found next to this Python, not on the PATH.
    env={},
    capture_output=True,
    text=True,
    check=False,
  )
  # Long names are broken over lines.
  output = ' '.join(run.stdout.split())
  broken = {name for name in CONTRACTS if f'{name} BROKEN' in output}
  kept = {name for name in CONTRACTS if f'{name} KEPT' in output}
  assert broken | kept == set(CONTRACTS), run.stdout + run.stderr
  return run.returncode, broken


@pytest.fixture
def checkout(tmp_path):
  """A copy of what is checked, to be changed."""
  for folder in ('dst_t5x', 'launch', 'tasks'):
    shutil.copytree(
      REPOSITORY / folder,
      tmp_path / folder,
      ignore=shutil.ignore_patterns('__pycache__', '*.safetensors'),
    )
  shutil.copy(REPOSITORY / 'pyproject.toml', tmp_path)
  return tmp_path


def test_every_contract_is_kept():
  assert _check() == (0, set())


@pytest.mark.parametrize(
  ('folder', 'line', 'contract'),
  [
    ('dst_t5x/seeds', 'from dst_t5x.hooks import axes', ROOMS),
    ('tasks', 'from dst_t5x.core import methods', ROOMS),
    ('dst_t5x/planning', 'from dst_t5x.launch import local', ROOMS),
    ('dst_t5x/commands', 'import t5x', T5X),
    ('dst_t5x/core', 'import tensorflow', TENSORFLOW),
    ('dst_t5x/core', 'import flax.linen', CORE),
  ],
)
def test_an_arrow_turned_round_breaks_its_contract(
  folder, line, contract, checkout
):
  module = min(
    path
    for path in (checkout / folder).glob('*.py')
    if path.name != '__init__.py'
  )
  with module.open('a') as file:
    file.write(f'\n\ndef _planted() -> None:\n  {line}\n')
  assert _check(checkout) == (1, {contract})
