"""Writing any layout by its name."""

import os
from collections.abc import Mapping
from typing import Any, Protocol

from dst_t5x.seeds import (
  orbax_layout,
  orbax_writing,
  own_file,
  own_layout,
  t5x_legacy,
  targets,
)
from dst_t5x.seeds.errors import SeedError
from dst_t5x.seeds.hugging_face import model_folder, model_writing


class Writer(Protocol):
  """What every layout's `write` is."""

  def __call__(
    self,
    params: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    step: int | None = None,
    config: Mapping[str, Any] | None = None,
  ) -> str:
    """Writes parameters and returns where they are."""
    ...


WRITERS: Mapping[str, Writer] = {
  t5x_legacy.LAYOUT: t5x_legacy.write,
  orbax_layout.LAYOUT: orbax_writing.write,
  model_folder.LAYOUT: model_writing.write,
  own_layout.LAYOUT: own_layout.write,
}


def check_target(
  layout: str, path: str | os.PathLike[str], step: int | None = None
) -> None:
  """Raises if `write` could not write there, before the work for it is done.

  Args:
    layout: 't5x', 'orbax', 'hf' or 'dst_t5x'.
    path: where to.
    step: of the checkpoint.

  Raises:
    SeedError: if there is no such layout, or something is there already.

  Example:
    >>> check_target('t5x', 'no/such/folder', 7)
  """
  if layout not in WRITERS:
    raise SeedError(f'no layout {layout!r}; there are {", ".join(WRITERS)}')
  if layout in (t5x_legacy.LAYOUT, orbax_layout.LAYOUT):
    targets.checkpoint(path, step)
  else:
    targets.local(path)
  if layout == own_layout.LAYOUT:
    own_file.check_name(path)


def write(
  layout: str,
  params: Mapping[str, Any],
  path: str | os.PathLike[str],
  *,
  step: int | None = None,
  config: Mapping[str, Any] | None = None,
) -> str:
  """Writes a seed in the layout of that name, all of it or nothing.

  Args:
    layout: 't5x', 'orbax', 'hf' or 'dst_t5x'.
    params: nested dict of NumPy or JAX arrays.
    path: where to; 't5x' and 'orbax' make the folder `checkpoint_<step>` in
      it, unless that is its name.
    step: of the checkpoint, for layouts that have one.
    config: the network's configuration, for layouts that have one.

  Returns:
    Where the seed is.

  Raises:
    SeedError: if there is no such layout, something is at the path already, or
      the layout cannot hold it.
    OSError: if it cannot be written.

  Example:
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as d:
    ...   where = write('orbax', {'a': np.ones(2)}, d, step=7)
    ...   os.path.basename(where)
    'checkpoint_7'
  """
  check_target(layout, path, step)
  return WRITERS[layout](params, path, step=step, config=config)
