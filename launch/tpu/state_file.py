"""The state file of a run on Cloud TPU: `NAME.tpu.json`.

It is written before the cloud is asked for anything that costs money, and
removed once the run's resources are gone. So a launcher that is killed, at any
moment, leaves a trace of what it made. The file holds no credentials.
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
OPTIONS = (
  'runtime_version',
  'network',
  'subnetwork',
  'internal_ips',
  'service_account',
)
_ENDING = '.tpu.json'


@dataclasses.dataclass(frozen=True)
class Run:
  """A TPU and what it is to do.

  Attributes:
    name: of the TPU and, if there is one, of the queued resource.
    zone: such as 'us-central2-b'.
    project: the project that pays.
    accelerator: such as 'v4-8', as `planning.slices.parse` takes it.
    provisioning: one of `PROVISIONING`.
    max_hours: lifetime of a TPU, from when it is made (hours).
    expires: when the TPU is to be gone (seconds since 1970).
    labels: the user's own labels of the TPU.
    options: further settings of the TPU, of those in `OPTIONS` that were given.
    package: 'package', a wheel or checkout to install, and 'constraints', a
      file of pinned versions: their absolute paths.
    commits: repository ('t5x', 'airio', 'jestimator') → commit to install.
    main: 'train', 'eval', 'infer', or None until one is chosen.
    flags: T5X's flags, as the user gave them.
    files: files to copy beside the gin files.
    finish: whether the delta is fetched and the TPU deleted after the main.
    attempt: how often the main was started (count).
    done: names of the steps that are done, in order.
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
    """Kinds of resources that a run makes: True is a queued one, False a TPU.

    The queued resource comes first: deleting it deletes its TPU.
    """
    return (True, False) if self.queued else (False,)

  @property
  def spot(self) -> bool:
    """Whether the TPU may be taken away at any time."""
    return self.provisioning.endswith('spot')

  @property
  def folder(self) -> pathlib.Path:
    """The folder for what is sent to workers, and for what they print."""
    return pathlib.Path(f'{self.name}.tpu')


def path(name: str) -> pathlib.Path:
  """Returns the state file of a run, in the working directory.

  Raises:
    ValueError: if Cloud TPU would not accept the name.

  Example:
    >>> path('demo').name
    'demo.tpu.json'
  """
  if not re.fullmatch(r'[a-z]([-a-z0-9]{0,61}[a-z0-9])?', name):
    raise ValueError(
      f'{name!r} cannot be the name of a TPU: give lower-case letters, digits '
      'and hyphens, a letter first'
    )
  return pathlib.Path(f'{name}{_ENDING}')


def write(run: Run) -> Run:
  """Writes the state file, whole or not at all.

  Args:
    run: its content.
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
  """
  return write(dataclasses.replace(run, **changes))


def finished(run: Run, step: str) -> Run:
  """Notes in the state file that a step is done.

  Args:
    run: as it was.
    step: its name, such as 'install'.

  Returns:
    The run as it is now.
  """
  done = tuple(each for each in run.done if each != step)
  return update(run, done=(*done, step))


def names() -> list[str]:
  """Returns the names of the runs that have a state file here, sorted."""
  return sorted(
    file.name.removesuffix(_ENDING)
    for file in pathlib.Path().glob(f'*{_ENDING}')
  )


def read(name: str) -> Run:
  """Reads the state file of a run.

  Raises:
    ValueError: if there is none, or it is damaged or of another version.
  """
  file = path(name)
  if not file.is_file():
    known = f'there are {", ".join(names())}' if names() else 'no run was made'
    raise ValueError(f'{file} is not in {os.getcwd()}: {known} here')
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
  """Removes the state file and the launcher's folder."""
  shutil.rmtree(run.folder, ignore_errors=True)
  path(run.name).unlink(missing_ok=True)
