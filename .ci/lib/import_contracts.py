"""Checks the import contracts on the package as it is when installed.

In the checkout, launch/ and tasks/ lie beside dst_t5x/, so that a reader of
imports does not see them as dst_t5x.launch and dst_t5x.tasks. Here all three
are put together in a temporary folder, and import-linter reads that, with the
contracts in pyproject.toml.

  python .ci/lib/import_contracts.py [CHECKOUT]
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

FOLDERS = {
  'dst_t5x': 'dst_t5x',
  'launch': 'dst_t5x/launch',
  'tasks': 'dst_t5x/tasks',
}
# What the command `lint-imports` runs: as code, so that this Python's
# import-linter is used, whatever is on the PATH.
LINT_IMPORTS = 'from importlinter import cli; cli.lint_imports_command()'


def main(checkout: pathlib.Path) -> int:
  """Returns import-linter's exit status: 0 if every contract is kept."""
  with tempfile.TemporaryDirectory() as place:
    for source, target in FOLDERS.items():
      shutil.copytree(
        checkout / source,
        pathlib.Path(place) / target,
        ignore=shutil.ignore_patterns('__pycache__', '*.safetensors'),
      )
    config = shutil.copy(checkout / 'pyproject.toml', place)
    return subprocess.run(
      [sys.executable, '-c', LINT_IMPORTS, '--config', config, '--no-cache'],
      cwd=place,
      env={**os.environ, 'PYTHONPATH': place},
      check=False,
    ).returncode


if __name__ == '__main__':
  arguments = sys.argv[1:]
  root = pathlib.Path(__file__).resolve().parents[2]
  sys.exit(main(pathlib.Path(arguments[0]) if arguments else root))
