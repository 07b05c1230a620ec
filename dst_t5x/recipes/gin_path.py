"""Where the gin files are, in a checkout as in an installed wheel."""

import importlib.util
from pathlib import Path

import dst_t5x


def root() -> Path:
  """Returns the folder that holds models/, methods/, tasks/, hosts/, runs/.

  Returns:
    Absolute path of the folder.

  Raises:
    FileNotFoundError: if the package came without its gin files.

  Example:
    >>> root().name
    'gin'
  """
  package = Path(dst_t5x.__file__).resolve().parent
  # A wheel carries the files inside the package. A checkout, which an editable
  # install points to, has them beside it: there pyproject.toml tells our
  # folder from site-packages/gin, which is gin-config.
  installed, checkout = package / 'gin', package.parent / 'gin'
  if installed.is_dir():
    return installed
  if checkout.is_dir() and (package.parent / 'pyproject.toml').is_file():
    return checkout
  raise FileNotFoundError(
    f'dst_t5x has no gin files: neither {installed} nor {checkout} is there; '
    'install dst_t5x again from its wheel or its checkout'
  )


def t5x_root() -> Path | None:
  """Returns the folder that holds the folder t5x/, if T5X is installed.

  T5X is looked up, not imported, as its import takes many seconds.

  Returns:
    Absolute path of the folder, below which T5X's gin files are found by names
    such as t5x/configs/…; None if T5X is not installed.
  """
  spec = importlib.util.find_spec('t5x')
  # A folder without __init__.py that happens to be called t5x has no origin.
  if spec is None or spec.origin is None:
    return None
  return Path(spec.origin).resolve().parents[1]


def search_paths() -> tuple[Path, ...]:
  """Returns the folders to give to gin, ours first.

  Returns:
    Our root and, if T5X is installed, the folder that holds t5x/.

  Raises:
    FileNotFoundError: if the package came without its gin files.
    ValueError: if a folder's name holds a comma, which T5X's
      `--gin_search_paths` takes for a separator.
  """
  paths = tuple(path for path in (root(), t5x_root()) if path is not None)
  for path in paths:
    if ',' in str(path):
      raise ValueError(
        f'{str(path)!r} holds a comma, which separates the folders of '
        '--gin_search_paths; install the package below a folder without one'
      )
  return paths
