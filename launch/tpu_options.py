"""Options of the commands, and what is refused before anything costs money."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from dst_t5x.launch import (
  tpu_commands,
  tpu_flags,
  tpu_flow,
  tpu_gcloud,
  tpu_package,
  tpu_state,
)
from dst_t5x.launch.t5x_commit import T5X_COMMIT
from dst_t5x.planning import slices

dry_run = click.option(
  '--dry-run',
  is_flag=True,
  help='Print the commands, quoted for a shell, and run none.',
)
gcloud = click.option(
  '--gcloud',
  'executable',
  envvar='DST_T5X_GCLOUD',
  default='gcloud',
  show_default=True,
  help='Executable of the Google Cloud CLI.',
)
poll = click.option(
  '--poll',
  type=click.FloatRange(min=0),
  default=20.0,
  show_default=True,
  help='Seconds between two looks.',
)
max_preemptions = click.option(
  '--max-preemptions',
  type=click.IntRange(min=0),
  default=0,
  show_default=True,
  help='Make the TPU again so often by itself, within its lifetime.',
)
ignore_plan = click.option(
  '--ignore-plan', is_flag=True, help='Go on though the plan does not fit.'
)
local_model_dir = click.option(
  '--allow-local-model-dir',
  is_flag=True,
  help='Let the main write to the disk of the workers, which dies with them.',
)
files = click.option(
  '--file',
  'files',
  multiple=True,
  metavar='PATH',
  help='A further file to copy, below the working directory; repeatable.',
)
zone = click.option(
  '--zone', envvar='CLOUDSDK_COMPUTE_ZONE', help='Such as us-central2-b.'
)
project = click.option(
  '--project', envvar='CLOUDSDK_CORE_PROJECT', help='The project that pays.'
)
max_hours = click.option(
  '--max-hours',
  type=float,
  default=24.0,
  show_default=True,
  help='Lifetime of the TPU, the time in a queue included.',
)
accelerator = click.option(
  '--accelerator',
  required=True,
  metavar='TYPE',
  help='Such as v4-8, v5e-16, v5p-128 or v5p:4x4x4.',
)
flags = click.argument('flags', nargs=-1, type=click.UNPROCESSED)
main = click.argument('main', type=click.Choice(sorted(tpu_flags.OUTPUTS)))

_RESOURCE = (
  accelerator,
  zone,
  project,
  click.option(
    '--provisioning',
    type=click.Choice(tpu_state.PROVISIONING),
    default='on-demand',
    show_default=True,
  ),
  max_hours,
  click.option(
    '--labels', multiple=True, metavar='K=V', help='Of the TPU; repeatable.'
  ),
  click.option('--runtime-version', help='Software to boot.'),
  click.option('--network'),
  click.option('--subnetwork'),
  click.option(
    '--internal-ips', is_flag=True, help='No addresses outside the network.'
  ),
  click.option('--service-account', help='That the workers run as.'),
)
_PACKAGE = (
  click.option('--package', metavar='PATH', help='Wheel or checkout.'),
  click.option('--constraints', metavar='FILE', help='Pinned versions.'),
  click.option('--t5x-commit', default=T5X_COMMIT, show_default=True),
  click.option('--airio-commit', default='HEAD', show_default=True),
  click.option('--jestimator-commit', default='HEAD', show_default=True),
)


def resource(function: Callable[..., Any]) -> Callable[..., Any]:
  """Adds the options that say what to make."""
  for option in reversed(_RESOURCE):
    function = option(function)
  return function


def package(function: Callable[..., Any]) -> Callable[..., Any]:
  """Adds the options that say what to install."""
  for option in reversed(_PACKAGE):
    function = option(function)
  return function


def client(executable: str) -> tpu_gcloud.Gcloud:
  """Returns gcloud, which shows its commands on standard error."""
  return tpu_gcloud.Gcloud(executable, tpu_gcloud.shown)


def new_run(name: str, given: Mapping[str, Any]) -> tpu_state.Run:
  """Returns a run from options, without writing anything.

  Args:
    name: of the run.
    given: values of the options of `resource` and `package`.

  Returns:
    The run.

  Raises:
    ValueError: if a value is missing or cannot be right.
  """
  if tpu_state.path(name).exists():
    raise ValueError(
      f'{tpu_state.path(name)} is there, so {name!r} may exist: see '
      f'`status {name}`, go on with `resume {name}`, or `delete {name}`'
    )
  found = slices.parse(given['accelerator'])
  return tpu_state.Run(
    name=name,
    zone=check_zone(given['zone']),
    project=check_project(given['project']),
    accelerator=found.accelerator_type,
    provisioning=given['provisioning'],
    max_hours=given['max_hours'],
    expires=tpu_flow.deadline(check_hours(given['max_hours'])),
    labels=_labels(given['labels']),
    options={
      key: given[key]
      for key in (
        'runtime_version',
        'network',
        'subnetwork',
        'internal_ips',
        'service_account',
      )
      if given[key]
    },
    package=tpu_package.choose(given['package'], given['constraints']),
    commits={
      key: given[f'{key}_commit'] for key in ('t5x', 'airio', 'jestimator')
    },
  )


def check_zone(text: str | None) -> str:
  """Returns a zone.

  Args:
    text: as given.

  Returns:
    `text`.

  Raises:
    ValueError: if it is missing or no zone.

  Example:
    >>> check_zone('us-central2-b')
    'us-central2-b'
  """
  if not text or not re.fullmatch(r'[a-z]+-[a-z]+\d+-[a-z]', text):
    raise ValueError(f'give --zone, such as us-central2-b, not {text or ""!r}')
  return text


def check_project(text: str | None) -> str:
  """Returns a project; it is named in every command, as defaults change.

  Args:
    text: as given.

  Returns:
    `text`.

  Raises:
    ValueError: if it is missing.
  """
  if not text:
    raise ValueError('give --project, or set CLOUDSDK_CORE_PROJECT')
  return text


def check_hours(hours: float) -> float:
  """Returns a lifetime.

  Args:
    hours: as given.

  Returns:
    `hours`.

  Raises:
    ValueError: if it is not above 0 and finite.

  Example:
    >>> check_hours(1.5)
    1.5
  """
  if not (math.isfinite(hours) and hours > 0):
    raise ValueError(f'--max-hours must be finite and above 0, not {hours}')
  return hours


def check_plan(
  run: tpu_state.Run, flags: Sequence[str], *, main: str, ignore: bool
) -> None:
  """Prints the plan of a run, and refuses one that does not fit.

  Args:
    run: whose accelerator.
    flags: T5X's.
    main: 'train', 'eval' or 'infer'.
    ignore: go on all the same.

  Raises:
    ValueError: if the flags cannot be read, or the plan does not fit.
  """
  # Imports JAX, which `list` and `delete` can do without.
  from dst_t5x.planning import plan_table, recipe_plan

  plan = recipe_plan.of_recipe(flags, slices.parse(run.accelerator))
  click.echo(table(plan_table.rows(plan)))
  # It counts a training, which takes more than the other mains.
  if main == 'train' and not plan.fits and not ignore:
    raise ValueError(
      f'this does not fit on {run.accelerator}: take a larger one, or split '
      'the parameters with --gin.NUM_PARTITIONS, or go on with --ignore-plan'
    )


def slice_rows(accelerator: str) -> list[tuple[str, str]]:
  """Returns labels and values of a table on a slice alone.

  Args:
    accelerator: such as 'v4-8'.

  Returns:
    Pairs.

  Raises:
    ValueError: if there is no such slice.

  Example:
    >>> slice_rows('v5e-16')[2]
    ('hosts', '4 of 4 devices')
  """
  found = slices.parse(accelerator)
  return [
    ('accelerator', found.accelerator_type),
    ('topology', str(found)),
    ('hosts', f'{found.hosts} of {found.devices_per_host} devices'),
    ('memory', f'{found.device_bytes / 2**30:.2f} GiB a device'),
  ]


def table(rows: Sequence[Sequence[str]]) -> str:
  """Returns rows as aligned columns.

  Args:
    rows: texts, as many in each.

  Returns:
    Lines.

  Example:
    >>> print(table([('mesh', '2 × 4'), ('hosts', '1')]))
    mesh   2 × 4
    hosts  1
  """
  if not rows:
    return ''
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return '\n'.join(
    '  '.join(
      cell.ljust(width) for cell, width in zip(row, widths, strict=True)
    ).rstrip()
    for row in rows
  )


def _labels(given: Sequence[str]) -> dict[str, str]:
  labels = {}
  for pair in ','.join(given).split(',') if given else ():
    key, equals, value = pair.partition('=')
    if (
      not equals
      or not re.fullmatch(r'[a-z][a-z0-9_-]{0,62}', key)
      or not re.fullmatch(r'[a-z0-9_-]{0,63}', value)
    ):
      raise ValueError(
        f'--labels {pair!r}: give key=value of lower-case letters, digits, _ '
        'and -, up to 63 characters each'
      )
    if key == tpu_commands.EXPIRES:
      raise ValueError(f'label {key} is set by --max-hours')
    labels[key] = value
  return labels
