"""What exists in the cloud, as the cloud says it."""

import calendar
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from dst_t5x.launch import tpu_commands, tpu_gcloud, tpu_state

# States of a TPU in which its workers, and what ran on them, are lost:
# https://cloud.google.com/tpu/docs/reference/rest/v2/projects.locations.nodes
_LOST = frozenset(
  ('PREEMPTED', 'TERMINATED', 'STOPPED', 'STOPPING', 'DELETING', 'HIDDEN')
)
# States of a queued resource that has, or will have, no TPU any more:
# https://cloud.google.com/tpu/docs/queued-resources
_ENDED = frozenset(('FAILED', 'SUSPENDING', 'SUSPENDED', 'DELETING'))


class Seen(NamedTuple):
  """One resource, as the cloud describes it.

  Attributes:
    queue: whether it is a queued resource; otherwise it is a TPU.
    name: its own, without project and zone.
    zone: where it is.
    state: such as 'READY' or 'ACTIVE'; None if there is no such resource.
    labels: of the TPU.
    created: seconds since 1970; None if it was not said.
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
    """When it is to be gone (seconds since 1970); None if it is not ours."""
    text = self.labels.get(tpu_commands.EXPIRES, '')
    return int(text) if text.isdigit() else None

  @property
  def lost(self) -> bool:
    """Whether what ran on it is gone."""
    states = _ENDED if self.queue else _LOST
    return self.state is None or self.state in states

  def __str__(self) -> str:
    """Returns a sentence on what it is and whether it costs money."""
    kind = 'Queued resource' if self.queue else 'TPU'
    if self.state is None:
      return f'{kind} {self.name!r} does not exist.'
    where = f'{kind} {self.name!r} exists in {self.zone}, state {self.state}'
    if self.queue:
      return f'{where}: its TPU is billed as soon as there is one.'
    return f'{where}: billed until it is deleted.'


def look(
  gcloud: tpu_gcloud.Gcloud, run: tpu_state.Run, *, queue: bool = False
) -> Seen:
  """Asks for the TPU of a run.

  Args:
    gcloud: to ask with.
    run: whose TPU.
    queue: ask for the queued resource instead.

  Returns:
    What there is.

  Raises:
    CommandFailed: if the cloud does not say.
  """
  try:
    found = gcloud.json(tpu_commands.describe(run, queue=queue))
  except tpu_gcloud.CommandFailed as error:
    if error.not_found:
      return Seen(queue, run.name, run.zone, None, {})
    raise
  return _seen(found, run.zone, queue=queue)


def look_all(gcloud: tpu_gcloud.Gcloud, run: tpu_state.Run) -> list[Seen]:
  """Asks for all that a run may have made.

  Args:
    gcloud: to ask with.
    run: as it was made.

  Returns:
    The queued resource, if the run has one, and the TPU.

  Raises:
    CommandFailed: if the cloud does not say.
  """
  return [look(gcloud, run, queue=queue) for queue in run.kinds]


def preempted(gcloud: tpu_gcloud.Gcloud, run: tpu_state.Run) -> bool:
  """Returns whether the cloud took the TPU of a run away.

  Args:
    gcloud: to ask with.
    run: whose TPU was there before.

  Returns:
    True if it, or the queued resource, is gone or in a state without a way
    back.

  Raises:
    CommandFailed: if the cloud does not say.
  """
  return any(each.lost for each in look_all(gcloud, run))


def ours(
  gcloud: tpu_gcloud.Gcloud, zones: Iterable[str], project: str
) -> list[Seen]:
  """Lists what this launcher made, whoever ran it and wherever.

  Args:
    gcloud: to ask with.
    zones: to look in.
    project: the project that pays.

  Returns:
    Queued resources first, then TPUs.

  Raises:
    CommandFailed: if the cloud does not say.
  """
  found = []
  for queue in (True, False):
    for zone in zones:
      args = tpu_commands.list_all(zone, project, queue=queue)
      found += [_seen(each, zone, queue=queue) for each in gcloud.json(args)]
  return [each for each in found if each.expires is not None]


def _seen(found: Mapping[str, Any], zone: str, *, queue: bool) -> Seen:
  # projects/P/locations/Z/nodes/N
  parts = found['name'].split('/')
  if len(parts) > 3:
    zone = parts[3]
  if queue:
    # A queued resource has no labels of its own; the flag sets its TPU's:
    # https://cloud.google.com/tpu/docs/reference/rest/v2/projects.locations.queuedResources
    specs = found.get('tpu', {}).get('nodeSpec', [])
    labels = specs[0].get('node', {}).get('labels', {}) if specs else {}
    state = found.get('state', {}).get('state', 'STATE_UNSPECIFIED')
  else:
    labels = found.get('labels', {})
    state = found.get('state', 'STATE_UNSPECIFIED')
  return Seen(
    queue=queue,
    name=parts[-1],
    zone=zone,
    state=state,
    labels=labels,
    created=_seconds(found.get('createTime')),
    owner=(found.get('queuedResource') or '').rpartition('/')[2] or None,
  )


def _seconds(text: str | None) -> int | None:
  """Reads a time such as '2026-01-31T12:00:00.123456789Z'."""
  if not text:
    return None
  try:
    return calendar.timegm(time.strptime(text[:19], '%Y-%m-%dT%H:%M:%S'))
  except ValueError:
    return None
