"""Public names of a room that are loaded when they are first used.

A room whose modules import something slow (JAX, TensorFlow, matplotlib) lists
its public names in its `__init__.py` and binds what this module returns:

  __getattr__, __dir__ = late_names.load_late(__name__, {'train': 'training'})
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def load_late(
  package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
  """Returns what a package needs as its `__getattr__` and `__dir__`.

  Args:
    package: its `__name__`.
    homes: for every public name the module in the package that holds it, such
      as 'core.methods'. Where a name ends in ':', as in 'core.methods:', the
      module itself is what the public name stands for.

  Returns:
    The two functions. A name that was used once is kept in the package.

  Example:
    >>> get, names = load_late('dst_t5x', {'unflatten': 'arrays.paths'})
    >>> get('unflatten')({'a/b': 1})
    {'a': {'b': 1}}
  """

  def load(name: str) -> Any:
    if name not in homes:
      raise AttributeError(f'module {package!r} has no attribute {name!r}')
    module, is_module, _ = homes[name].partition(':')
    value: Any = importlib.import_module(f'{package}.{module}')
    if not is_module:
      value = getattr(value, name)
    setattr(sys.modules[package], name, value)
    return value

  def names() -> list[str]:
    return sorted({*vars(sys.modules[package]), *homes})

  return load, names
