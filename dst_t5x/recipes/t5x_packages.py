"""Whether T5X and the two packages that it imports are installed.

They are looked up, not imported, as T5X's import takes many seconds.
"""

import importlib.util

from dst_t5x.recipes import gin_path


def missing() -> list[str]:
  """Returns which of T5X, airio and jestimator cannot be imported.

  Returns:
    Their names; none if all can be imported.
  """
  # A folder t5x/ without __init__.py, such as that of its clone, is not the
  # package; of the other two packages, one has no __init__.py.
  names = [] if gin_path.t5x_root() is not None else ['t5x']
  for name in ('airio', 'jestimator'):
    if importlib.util.find_spec(name) is None:
      names.append(name)
  return names
