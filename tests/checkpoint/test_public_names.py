"""What users import from the room."""

import subprocess
import sys

from dst_t5x import checkpoint


def test_import_is_light():
  heavy = ('orbax', 'tensorstore', 'tensorflow', 't5x', 'flax')
  code = (
    'import sys, dst_t5x.checkpoint\n'
    f'print(sorted(set({heavy!r}) & set(sys.modules)))'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout == '[]\n'


def test_public_names_are_there():
  assert set(checkpoint.__all__) <= set(vars(checkpoint))
