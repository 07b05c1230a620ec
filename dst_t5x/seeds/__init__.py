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

from typing import TYPE_CHECKING

from dst_t5x.arrays import late_names

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

# The module of each name. The commands take the names of layouts from this
# room, and `dst-t5x --help` must not wait for JAX.
_HOMES = {
  'BUNDLED': '.seed',
  'NotThisLayoutError': '.errors',
  'Seed': '.seed',
  'SeedError': '.errors',
  'SeedNotFoundError': '.errors',
  'ShapeAndDtype': '.seed',
  'Source': 'dst_t5x.arrays.source',
  'bundled_path': '.seed',
  'check_params': '.seed',
  'fingerprint': 'dst_t5x.arrays.fingerprints',
  'open_source': '.seed',
  'read': '.seed',
  'write': '.seed',
}

__getattr__, __dir__ = late_names.load_late(__name__, _HOMES)
