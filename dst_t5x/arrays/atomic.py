"""Writes files and directories that appear whole or not at all.

The bytes go into a temporary file beside the target, are flushed to the disk,
and the temporary file is then renamed to the target, which POSIX does in one
step. So a reader finds either the old content or the new, also after a crash or
a power cut, and never a part. A process that is killed can leave a
`.dst_t5x-*.tmp` behind, which is never read and may be deleted.
"""

import contextlib
import errno
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterable, Iterator
from typing import BinaryIO

Path = str | os.PathLike[str]
Bytes = bytes | memoryview


def write_bytes(path: Path, content: Bytes | Iterable[Bytes]) -> int:
  """Writes a whole file, replacing what was there.

  Args:
    path: path of the file; its directory must exist.
    content: the bytes, or an iterable of chunks of them, in order.

  Returns:
    Size of the file (bytes).

  Raises:
    OSError: if the file cannot be written; what was there is still there.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as d:
    ...   write_bytes(pathlib.Path(d, 'a'), [b'seed', b'!'])
    5
  """
  chunks = (content,) if isinstance(content, Bytes) else content
  size = 0
  with open(path) as file:
    for chunk in chunks:
      file.write(chunk)
      size += memoryview(chunk).nbytes
  return size


@contextlib.contextmanager
def open(path: Path) -> Iterator[BinaryIO]:
  """Opens a binary file for writing, which replaces `path` on success.

  Args:
    path: path of the file; its directory must exist. If it is a symbolic link,
      the file that it points to is replaced.

  Yields:
    The open temporary file. If the block raises, it is deleted and `path` is
    as before.

  Raises:
    OSError: if the file cannot be written.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as d:
    ...   with open(pathlib.Path(d, 'a')) as file:
    ...     _ = file.write(b'seed')
    ...   pathlib.Path(d, 'a').read_bytes()
    b'seed'
  """
  target = _target(path)
  if target.is_dir():
    raise IsADirectoryError(errno.EISDIR, 'is a directory', str(target))
  temporary = _temporary(target)
  flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, 'O_BINARY', 0)
  descriptor = os.open(temporary, flags, 0o666)  # the umask applies
  try:
    with os.fdopen(descriptor, 'wb') as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, target)
  except BaseException:
    with contextlib.suppress(FileNotFoundError):
      os.unlink(temporary)
    raise
  _sync_directory(target.parent)


@contextlib.contextmanager
def directory(path: Path) -> Iterator[pathlib.Path]:
  """Makes a directory that appears with all its files on success.

  Args:
    path: path of the directory, which must not exist or must be empty. Its
      parent must exist.

  Yields:
    The temporary directory to write into. If the block raises, it is deleted
    with all it holds.

  Raises:
    FileExistsError: if `path` is a file or a directory that is not empty: there
      is no portable way to swap two directories in one step.
    OSError: if something cannot be written.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as d:
    ...   with directory(pathlib.Path(d, 'step_1')) as new:
    ...     _ = (new / 'state').write_bytes(b'seed')
    ...   pathlib.Path(d, 'step_1', 'state').read_bytes()
    b'seed'
  """
  target = _target(path)
  if target.exists() and (not target.is_dir() or any(target.iterdir())):
    raise FileExistsError(errno.EEXIST, 'exists already', str(target))
  temporary = _temporary(target)
  temporary.mkdir()
  try:
    yield temporary
    for parent, _, names in os.walk(temporary):
      for name in names:
        _sync(pathlib.Path(parent, name), os.O_RDONLY)
      _sync_directory(pathlib.Path(parent))
    os.rename(temporary, target)
  except BaseException:
    shutil.rmtree(temporary, ignore_errors=True)
    raise
  _sync_directory(target.parent)


def remove_directory(path: Path) -> None:
  """Removes a directory with all it holds; at any time it is whole or gone.

  Args:
    path: path of the directory.

  Raises:
    OSError: if it cannot be removed.

  Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as d:
    ...   pathlib.Path(d, 'step_1').mkdir()
    ...   remove_directory(pathlib.Path(d, 'step_1'))
    ...   os.listdir(d)
    []
  """
  target = pathlib.Path(path)
  doomed = _temporary(target)
  target.rename(doomed)
  shutil.rmtree(doomed)


def is_leftover(path: Path) -> bool:
  """Returns whether a path has the name of our temporary files.

  Such a path is left behind by a process that was killed.

  Args:
    path: path of a file or directory; only its name matters.

  Returns:
    Whether it has.

  Example:
    >>> is_leftover('.dst_t5x-0123.tmp'), is_leftover('delta.safetensors')
    (True, False)
  """
  name = pathlib.Path(path).name
  return name.startswith('.dst_t5x-') and name.endswith('.tmp')


def remove_leftovers(path: Path) -> None:
  """Removes the temporary files that killed processes left in a directory.

  No other process may be writing to the directory.

  Args:
    path: path of the directory; nothing happens if it does not exist.

  Raises:
    OSError: if something cannot be removed.

  Example:
    >>> remove_leftovers('there/is/no/such/directory')
  """
  folder = pathlib.Path(path)
  if not folder.is_dir():
    return
  for child in folder.iterdir():
    if is_leftover(child):
      if child.is_dir():
        shutil.rmtree(child)
      else:
        child.unlink()


def _target(path: Path) -> pathlib.Path:
  """Returns the path to replace: symbolic links are followed."""
  target = pathlib.Path(os.path.realpath(path))
  if not target.parent.is_dir():
    raise FileNotFoundError(
      errno.ENOENT, 'directory to write into does not exist', str(target.parent)
    )
  return target


def _temporary(target: pathlib.Path) -> pathlib.Path:
  # It is in the same directory, as a rename across file systems is a copy.
  return target.parent / f'.dst_t5x-{secrets.token_hex(8)}.tmp'


def _sync_directory(path: pathlib.Path) -> None:
  """Flushes the names in a directory, so that they survive a power cut."""
  try:
    _sync(path, os.O_RDONLY)
  except OSError as error:
    # Some network file systems cannot fsync a directory; they keep their
    # metadata in order themselves.
    if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
      raise


def _sync(path: pathlib.Path, flags: int) -> None:
  descriptor = os.open(path, flags)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
