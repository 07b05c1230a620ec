"""Prints the folders that hold T5X, airio and jestimator, one a line.

Run by the Python outside the environment, which need not have what they
import: they are looked up, not imported. Prints nothing if one is missing.
"""

import importlib.util
import pathlib

folders = []
for name in ('t5x', 'airio', 'jestimator'):
  spec = importlib.util.find_spec(name)
  if spec is None or not spec.submodule_search_locations:
    break
  package = pathlib.Path(next(iter(spec.submodule_search_locations)))
  folders.append(str(package.parent))
else:
  print('\n'.join(dict.fromkeys(folders)))
