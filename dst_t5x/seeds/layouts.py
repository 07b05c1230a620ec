"""The layouts of seeds: one list, and how a seed's layout is recognised.

Importing this module imports no layout: a row names the modules that read and
write its layout, and they are imported when a seed is read or written.
"""

import importlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

from dst_t5x.arrays import known_names
from dst_t5x.seeds import folders
from dst_t5x.seeds.errors import (
  NotThisLayoutError,
  SeedError,
  SeedNotFoundError,
)

if TYPE_CHECKING:  # it imports JAX
  from dst_t5x.arrays.source import Source


class Reader(Protocol):
  """The functions of a module that reads a layout."""

  def is_here(self, location: str) -> bool:
    """Returns whether a file or folder looks like this layout."""
    ...

  def open_source(self, location: str) -> 'Source':
    """Opens what lies there; raises a SeedError if it cannot be read."""
    ...


class Writer(Protocol):
  """The function of a module that writes a layout."""

  def write(
    self,
    params: Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    step: int | None = None,
    config: Mapping[str, Any] | None = None,
  ) -> str:
    """Writes parameters, all or nothing, and returns where they are."""
    ...


class Layout(NamedTuple):
  """A way in which seeds lie on a disk.

  Attributes:
    name: the name that `--to` takes and `Source.layout` has.
    title: the layout in a few words, for people.
    written_as: 'checkpoint' for a folder `checkpoint_<step>`, 'folder' for a
      folder of any name, 'file' for one .safetensors file.
    reader: name of the module that recognises and reads it; see `Reader`.
    writer: name of the module that writes it; see `Writer`.
  """

  name: str
  title: str
  written_as: Literal['checkpoint', 'folder', 'file']
  reader: str
  writer: str

  def load_reader(self) -> Reader:
    """Imports the module that reads this layout."""
    return cast(Reader, importlib.import_module(self.reader))

  def load_writer(self) -> Writer:
    """Imports the module that writes this layout."""
    return cast(Writer, importlib.import_module(self.writer))


# Recognised by its index, the file 'checkpoint', without '_METADATA' beside it.
T5X = Layout(
  name='t5x',
  title='T5X before Orbax',
  written_as='checkpoint',
  reader='dst_t5x.seeds.t5x_legacy',
  writer='dst_t5x.seeds.t5x_legacy',
)
# Recognised by '_METADATA' or 'manifest.ocdbt', in the folder or an item of it.
ORBAX = Layout(
  name='orbax',
  title='Orbax as T5X writes it',
  written_as='checkpoint',
  reader='dst_t5x.seeds.orbax_layout',
  writer='dst_t5x.seeds.orbax_layout',
)
# Recognised by 'config.json' or, in a lone file, by the names of the tensors.
HUGGING_FACE = Layout(
  name='hf',
  title='Hugging Face',
  written_as='folder',
  reader='dst_t5x.seeds.hugging_face.model_folder',
  writer='dst_t5x.seeds.hugging_face.model_writing',
)
# Takes any other file, and refuses it if its metadata name another format.
OWN = Layout(
  name='dst_t5x',
  title="dst-t5x's own",
  written_as='file',
  reader='dst_t5x.seeds.own_layout',
  writer='dst_t5x.seeds.own_layout',
)
# T5X itself takes this file for the checkpoint that it lies in.
T5X_INDEX = 'checkpoint'
# In the order in which they are tried: a seed has the first that is recognised.
LAYOUTS = (T5X, ORBAX, HUGGING_FACE, OWN)
NAMES = tuple(layout.name for layout in LAYOUTS)
TITLES = ', '.join(f'{layout.name} ({layout.title})' for layout in LAYOUTS)

WHAT_WORKS = (
  "'bundled', a .safetensors file written by dst-t5x, a T5X or Orbax "
  'checkpoint (a folder such as checkpoint_1000000, local or gs://), or a '
  'Hugging Face T5 folder with config.json and model.safetensors'
)


def by_name(name: str) -> Layout:
  """Returns the layout that has a name.

  Args:
    name: one of `NAMES`.

  Returns:
    The layout.

  Raises:
    SeedError: if no layout has that name; the message lists all names.

  Example:
    >>> by_name('hf').title
    'Hugging Face'
  """
  for layout in LAYOUTS:
    if layout.name == name:
      return layout
  raise SeedError(
    f'no layout {name!r}; there are {", ".join(NAMES)}'
    + known_names.hint(name, NAMES)
  )


def open_source(location: str) -> 'Source':
  """Opens the seed at a place, whatever its layout.

  Args:
    location: path or URL of a checkpoint, of a folder that holds just one
      checkpoint, or of a file.

  Returns:
    The opened seed.

  Raises:
    SeedNotFoundError: if no seed lies there; the message says what works.
    NotThisLayoutError: if a file there is of a format that is not read; the
      message says what works.
    SeedError: if the seed is damaged, or there are several.

  Example:
    >>> open_source('no/such/seed')
    Traceback (most recent call last):
    ...
    dst_t5x.seeds.errors.SeedNotFoundError: cannot read the seed \
no/such/seed: no such file or directory; what works: ...
  """
  location = _without_index(location)
  if folders.is_remote(location) and location.endswith('.safetensors'):
    raise SeedError(
      f'{location}: a .safetensors file on a remote path is not read; copy it '
      'to this machine first'
    )
  for layout in LAYOUTS:
    reader = layout.load_reader()
    if reader.is_here(location):
      try:
        return reader.open_source(location)
      except NotThisLayoutError as error:
        message = f'{error}; what works: {WHAT_WORKS}'
        raise NotThisLayoutError(message) from error
  return open_source(_only_checkpoint(location))


def _without_index(location: str) -> str:
  """Returns the checkpoint that an index file lies in; else the location."""
  if os.path.basename(location) != T5X_INDEX:
    return location
  if folders.is_remote(location) or not os.path.isfile(location):
    return location
  return os.path.dirname(location) or '.'


def _only_checkpoint(location: str) -> str:
  """Returns the one checkpoint in a folder; raises if there is not just one."""
  names = folders.checkpoint_names(location)
  if len(names) == 1:
    return folders.join(location, names[0])
  if names:
    shown = names if len(names) < 9 else [*names[:3], '…', *names[-5:]]
    raise SeedError(
      f'{location} holds {len(names)} checkpoints; name one of them: '
      + ', '.join(shown)
    )
  if folders.is_remote(location):
    problem = 'nothing that can be read lies there'
  elif not os.path.exists(location):
    problem = 'no such file or directory'
  else:
    problem = (
      'it is a directory, but no checkpoint of T5X, Orbax or Hugging Face'
    )
  raise SeedNotFoundError(
    f'cannot read the seed {location}: {problem}; what works: {WHAT_WORKS}'
  )
