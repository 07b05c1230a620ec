"""What is remembered of a run on Cloud TPU: `NAME.tpu.json`.

The file is written before anything is asked for that costs money, and removed
once what it names is gone, so that a launcher killed at any moment leaves a
trace of what it made. It says nothing about credentials.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
from collections.abc import Mapping
from typing import Any

from dst_t5x.arrays import atomic

VERSION = 1
PROVISIONING = ('on-demand', 'spot', 'queued', 'queued-spot')


@dataclasses.dataclass(frozen=True)
class Run:
  """A TPU and what it is there for.

  Attributes:
    name: of the TPU and, if there is one, of the queued resource.
    zone: such as 'us-central2-b'.
    project: the project that pays.
    accelerator: such as 'v4-8', as `planning.slices.parse` takes it.
    provisioning: one of `PROVISIONING`.
    max_hours: lifetime that a TPU gets when it is made (hours).
    expires: when the TPU is to be gone (seconds since 1970).
    labels: the user's own.
    options: further settings of the TPU: runtime_version, network, subnetwork,
      internal_ips, service_account; only those that were given.
    package: wheel or checkout to install, and its constraints file.
    commits: repository → commit to install.
    main: 'train', 'eval', 'infer', or None before `run`.
    flags: T5X's flags, as the user gave them.
    files: further files to copy.
    finish: whether the delta is fetched and the TPU deleted after the main.
    attempt: counts the starts of the main.
    done: steps that are behind us, in order.
  """

  name: str
  zone: str
  project: str
  accelerator: str
  provisioning: str = 'on-demand'
  max_hours: float = 24.0
  expires: int = 0
  labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  package: Mapping[str, str] = dataclasses.field(default_factory=dict)
  commits: Mapping[str, str] = dataclasses.field(default_factory=dict)
  main: str | None = None
  flags: tuple[str, ...] = ()
  files: tuple[str, ...] = ()
  finish: bool = False
  attempt: int = 0
  done: tuple[str, ...] = ()

  @property
  def queued(self) -> bool:
    """Whether a queued resource makes the TPU."""
    return self.provisioning.startswith('queued')

  @property
  def kinds(self) -> tuple[bool, ...]:
    """What a run may have made: True is a queued resource, False a TPU."""
    return (True, False) if self.queued else (False,)

  @property
  def spot(self) -> bool:
    """Whether the TPU may be taken away at any time."""
    return self.provisioning.endswith('spot')

  @property
  def folder(self) -> pathlib.Path:
    """Where the launcher keeps what it sends and what workers say."""
    return pathlib.Path(f'{self.name}.tpu')


def path(name: str) -> pathlib.Path:
  """Returns the state file of a run, in the working directory.

  Args:
    name: of the run.

  Returns:
    The file.

  Raises:
    ValueError: if Cloud TPU would not take the name.

  Example:
    >>> path('demo').name
    'demo.tpu.json'
  """
  if not re.fullmatch(r'[a-z]([-a-z0-9]{0,61}[a-z0-9])?', name):
    raise ValueError(
      f'{name!r} is no name of a TPU: give lower-case letters, digits and '
      'hyphens, a letter first'
    )
  return pathlib.Path(f'{name}.tpu.json')


def write(run: Run) -> Run:
  """Writes the state file, whole or not at all.

  Args:
    run: what to remember.

  Returns:
    `run`.

  Raises:
    OSError: if the file cannot be written.
  """
  content = {'version': VERSION, **dataclasses.asdict(run)}
  atomic.write_bytes(
    path(run.name), (json.dumps(content, indent=2) + '\n').encode()
  )
  return run


def update(run: Run, **changes: Any) -> Run:
  """Changes fields of a run and writes its state file.

  Args:
    run: as it was.
    **changes: fields of `Run`.

  Returns:
    The run as it is now.

  Raises:
    OSError: if the file cannot be written.
  """
  return write(dataclasses.replace(run, **changes))


def finished(run: Run, step: str) -> Run:
  """Notes that a step is behind us.

  Args:
    run: as it was.
    step: such as 'install'.

  Returns:
    The run as it is now.

  Raises:
    OSError: if the state file cannot be written.
  """
  done = tuple(each for each in run.done if each != step)
  return update(run, done=(*done, step))


def read(name: str) -> Run:
  """Reads the state file of a run.

  Args:
    name: of the run.

  Returns:
    The run.

  Raises:
    ValueError: if there is none, or it is damaged or too new.
  """
  file = path(name)
  if not file.is_file():
    known = sorted(
      each.name.removesuffix('.tpu.json')
      for each in pathlib.Path().glob('*.tpu.json')
    )
    raise ValueError(
      f'{file} is not in {os.getcwd()}: '
      + (f'there are {", ".join(known)}' if known else 'no run was made here')
    )
  try:
    content = json.loads(file.read_text())
    version = content.pop('version')
    if version != VERSION:
      raise ValueError(
        f'it has version {version}, and this program reads {VERSION}'
      )
    run = Run(**content)
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise ValueError(f'{file} cannot be read: {error}') from error
  return dataclasses.replace(
    run,
    **{
      field: tuple(getattr(run, field)) for field in ('flags', 'files', 'done')
    },
  )


def remove(run: Run) -> None:
  """Removes the state file and the launcher's folder.

  Args:
    run: whose TPU is gone.

  Raises:
    OSError: if something cannot be removed.
  """
  shutil.rmtree(run.folder, ignore_errors=True)
  path(run.name).unlink(missing_ok=True)
