"""Where the input stood: only as many processes as saved it can restore it."""

import re

from etils import epath

_SHARDS = re.compile(r'train_ds-\d+-of-(\d+)')


def check(checkpoint: str, shards: int) -> None:
  """Raises if a checkpoint's dataset state is that of another data layout.

  T5X keeps one file for every process that reads data, and would look for one
  that is not there.

  Args:
    checkpoint: location of the checkpoint.
    shards: number of data shards of this run (count).

  Raises:
    ValueError: naming both numbers and what to do.

  Example:
    >>> check('no/such/checkpoint', 2)
  """
  found = {
    int(number)
    for name in _names(epath.Path(checkpoint) / 'dataset')
    for number in _SHARDS.findall(name)
  }
  if found and found != {shards}:
    raise ValueError(
      f'{checkpoint} says where the input stood for '
      f'{", ".join(map(str, sorted(found)))} data shard(s), and this run has '
      f'{shards}. Resume on as many processes as wrote it; or bind '
      'SAVE_DATASET = False, and the data starts from its beginning while '
      'parameters, optimizer and counters go on'
    )


def _names(folder: epath.Path) -> list[str]:
  """Returns the names of files in a folder and in the folders in it."""
  if not folder.is_dir():
    return []
  inside = list(folder.iterdir())
  below = [f for path in inside if path.is_dir() for f in path.iterdir()]
  return [path.name for path in (*inside, *below)]
