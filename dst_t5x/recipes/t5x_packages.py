"""Whether T5X and the two packages that it imports are installed.

They are looked up, not imported, as T5X's import takes many seconds.
"""

import importlib.util

from dst_t5x.recipes import gin_path


def missing() -> list[str]:
  """Returns which of T5X, airio and jestimator cannot be imported.

  Returns:
    Their names; none if all is there.
  """
  # A folder t5x/ without __init__.py, such as its clone, is no T5X. Of the
  # others, one is made like that.
  found = [] if gin_path.t5x_root() is not None else ['t5x']
  for name in ('airio', 'jestimator'):
    if importlib.util.find_spec(name) is None:
      found.append(name)
  return found
