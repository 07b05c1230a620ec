"""Seeds: the parameters that fine-tuning starts from and deltas refer to.

  >>> from dst_t5x import seeds
  >>> seed = seeds.read('bundled')
  >>> seed.params['decoder']['decoder_norm']['scale'].shape
  (96,)
  >>> seed.fingerprint == seeds.fingerprint(seed.params)
  True

`open_source` opens a seed without reading its parameters. Every error is a
`SeedError`. README.md in this folder tells which layouts are read and written.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from dst_t5x.arrays.fingerprints import fingerprint
  from dst_t5x.arrays.source import Source
  from dst_t5x.seeds.errors import (
    NotThisLayoutError,
    SeedError,
    SeedNotFoundError,
  )
  from dst_t5x.seeds.seed import (
    BUNDLED,
    Seed,
    ShapeAndDtype,
    bundled_path,
    check_params,
    open_source,
    read,
    write,
  )

__all__ = [
  'BUNDLED',
  'NotThisLayoutError',
  'Seed',
  'SeedError',
  'SeedNotFoundError',
  'ShapeAndDtype',
  'Source',
  'bundled_path',
  'check_params',
  'fingerprint',
  'open_source',
  'read',
  'write',
]

# The module that each public name lives in, unless it is `seeds.seed`.
_HOMES = {
  'NotThisLayoutError': 'dst_t5x.seeds.errors',
  'SeedError': 'dst_t5x.seeds.errors',
  'SeedNotFoundError': 'dst_t5x.seeds.errors',
  'Source': 'dst_t5x.arrays.source',
  'fingerprint': 'dst_t5x.arrays.fingerprints',
}


# The commands take the names of layouts from this room, and `dst-t5x --help`
# must not wait for JAX.
def __getattr__(name: str) -> Any:
  """Loads a public name at its first use."""
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module = importlib.import_module(_HOMES.get(name, 'dst_t5x.seeds.seed'))
  value = globals()[name] = getattr(module, name)
  return value


def __dir__() -> list[str]:
  """Returns the public names, loaded or not."""
  return sorted({*globals(), *__all__})
