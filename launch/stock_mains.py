"""T5X's own mains, which every launcher starts unchanged."""

import os
from collections.abc import Sequence

MAINS = ('train', 'eval', 'infer')
# The commit of T5X that the tests ran with, and that other hosts get.
T5X_COMMIT = 'cc342d4'
# Flags of `t5x.train` that join processes: a launcher gives them.
_JOINING = (
  'multiprocess_gpu',
  'coordinator_address',
  'process_count',
  'process_index',
)


def check_flags(flags: Sequence[str]) -> None:
  """Refuses flags with which no main can start.

  Args:
    flags: T5X's, all that came after `--`.

  Raises:
    ValueError: if there are none, or one is the launcher's to give.
  """
  if not flags:
    raise ValueError(
      "T5X's own flags are missing: give them after --, such as "
      '-- --gin_file=models/byte_tiny.gin'
    )
  for flag in flags:
    name = flag.lstrip('-').partition('=')[0]
    if flag.startswith('-') and name.removeprefix('no') in _JOINING:
      raise ValueError(
        f'--{name} is given to each process by the launcher; leave it out'
      )


def command_line(
  main: str,
  flags: Sequence[str],
  *,
  search_paths: Sequence[str | os.PathLike[str]],
) -> list[str]:
  """Returns a main as a module, with its flags.

  Args:
    main: 'train', 'eval' or 'infer'.
    flags: T5X's.
    search_paths: folders of gin files, unless the flags name folders.

  Returns:
    What follows `python -m`.

  Example:
    >>> command_line('eval', ['--gin_file=a.gin'], search_paths=['x', 'y'])
    ['t5x.eval', '--gin_search_paths=x,y', '--gin_file=a.gin']
  """
  if not any(flag.startswith('--gin_search_paths') for flag in flags):
    folders = ','.join(str(path) for path in search_paths)
    flags = [f'--gin_search_paths={folders}', *flags]
  return [f't5x.{main}', *flags]
