"""`dst-t5x gin-path`."""

import click

from dst_t5x.recipes import gin_path as _gin_path


@click.command('gin-path')
def gin_path() -> None:
  r"""Print the folders for --gin_search_paths, separated by commas.

  For T5X's mains, which find our gin files in these folders:

  \b
    python -m t5x.train --gin_search_paths=$(dst-t5x gin-path) …
  """
  click.echo(','.join(str(path) for path in _gin_path.search_paths()))
