"""What exists in the cloud: TPUs and the queued resources that make them."""

import calendar
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from . import command_lines
from .gcloud import Gcloud

# States of a TPU whose workers, with all that ran on them, are lost:
# https://cloud.google.com/tpu/docs/reference/rest/v2/projects.locations.nodes
_LOST = frozenset(
  ('PREEMPTED', 'TERMINATED', 'STOPPED', 'STOPPING', 'DELETING', 'HIDDEN')
)
# States of a queued resource that has no TPU and will get none:
# https://cloud.google.com/tpu/docs/queued-resources
_ENDED = frozenset(('FAILED', 'SUSPENDING', 'SUSPENDED', 'DELETING'))


class Preempted(ValueError):
  """The cloud took the TPU away."""


class Resource(NamedTuple):
  """A TPU or a queued resource, as the cloud describes it.

  Attributes:
    queue: whether it is a queued resource; otherwise it is a TPU.
    name: its name, without project and zone.
    zone: where it is.
    state: such as 'READY' or 'ACTIVE'; None if there is no such resource.
    labels: of the TPU.
    created: when it was made (seconds since 1970); None if that is unknown.
    owner: name of the queued resource that made it, or None.
  """

  queue: bool
  name: str
  zone: str
  state: str | None
  labels: Mapping[str, str]
  created: int | None = None
  owner: str | None = None

  @property
  def expires(self) -> int | None:
    """When its lifetime ends (seconds since 1970); None if it has no label.

    A resource without that label was not made by this program.
    """
    text = self.labels.get(command_lines.EXPIRES, '')
    return int(text) if text.isdigit() else None

  @property
  def lost(self) -> bool:
    """Whether it does not exist, or all that ran on it is gone."""
    states = _ENDED if self.queue else _LOST
    return self.state is None or self.state in states

  def __str__(self) -> str:
    """Returns a sentence that says what it is and whether it costs money."""
    kind = 'Queued resource' if self.queue else 'TPU'
    if self.state is None:
      return f'{kind} {self.name!r} does not exist.'
    where = f'{kind} {self.name!r} exists in {self.zone}, state {self.state}'
    if self.queue:
      return f'{where}: its TPU is billed as soon as there is one.'
    return f'{where}: billed until it is deleted.'


def made_here(gcloud: Gcloud, zone: str, project: str) -> list[Resource]:
  """Lists what this program made in a zone, whoever ran it and wherever.

  Args:
    gcloud: the program.
    zone: where to look.
    project: the project that pays.

  Returns:
    Queued resources first, then TPUs.

  Raises:
    CommandFailed: if the cloud does not answer.
  """
  listed = [
    read(content, zone, queue=queue)
    for queue in (True, False)
    for content in gcloud.json(
      command_lines.list_all(zone, project, queue=queue)
    )
  ]
  return [each for each in listed if each.expires is not None]


def read(content: Mapping[str, Any], zone: str, *, queue: bool) -> Resource:
  """Reads one resource from what `--format=json` prints."""
  # Names look like projects/P/locations/Z/nodes/N.
  parts = content['name'].split('/')
  if len(parts) > 3:
    zone = parts[3]
  if queue:
    # A queued resource has no labels itself; --labels sets those of its TPU:
    # https://cloud.google.com/tpu/docs/reference/rest/v2/projects.locations.queuedResources
    specs = content.get('tpu', {}).get('nodeSpec', [])
    labels = specs[0].get('node', {}).get('labels', {}) if specs else {}
    state = content.get('state', {}).get('state', 'STATE_UNSPECIFIED')
  else:
    labels = content.get('labels', {})
    state = content.get('state', 'STATE_UNSPECIFIED')
  return Resource(
    queue=queue,
    name=parts[-1],
    zone=zone,
    state=state,
    labels=labels,
    created=_seconds(content.get('createTime')),
    owner=(content.get('queuedResource') or '').rpartition('/')[2] or None,
  )


def _seconds(text: str | None) -> int | None:
  """Reads a time such as '2026-01-31T12:00:00.123456789Z'."""
  if not text:
    return None
  try:
    return calendar.timegm(time.strptime(text[:19], '%Y-%m-%dT%H:%M:%S'))
  except ValueError:
    return None
