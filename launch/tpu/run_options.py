"""Options of the commands for Cloud TPU."""

from collections.abc import Callable, Mapping
from typing import Any

import click

from dst_t5x.planning import slices

from .. import launch_options, stock_mains
from . import before_cost, parcels, state_file, whole_run
from .gcloud import Gcloud
from .state_file import Run

Decorator = Callable[[Any], Any]


def together(*decorators: Decorator) -> Decorator:
  """Returns one decorator in place of several, in their order."""

  def decorate(function: Any) -> Any:
    for decorator in reversed(decorators):
      function = decorator(function)
    return function

  return decorate


gcloud = click.option(
  '--gcloud',
  envvar='DST_T5X_GCLOUD',
  default='gcloud',
  show_default=True,
  callback=lambda context, parameter, value: Gcloud(value),
  help='Executable of the Google Cloud CLI.',
)
common = together(
  click.option(
    '--poll',
    type=click.FloatRange(min=0),
    default=20.0,
    show_default=True,
    help='Seconds between two looks at what takes minutes.',
  ),
  gcloud,
  launch_options.dry_run,
)
max_preemptions = click.option(
  '--max-preemptions',
  type=click.IntRange(min=0),
  default=0,
  show_default=True,
  help='How often to make the TPU again by itself, within its lifetime.',
)
files = click.option(
  '--file',
  'files',
  multiple=True,
  metavar='PATH',
  help='A further file to copy, below the working directory; repeatable.',
)
main = together(
  launch_options.main_argument,
  click.option(
    '--allow-local-model-dir',
    'allow_local',
    is_flag=True,
    help='Let the main write to the disk of the workers, which dies with them.',
  ),
  click.option(
    '--ignore-plan', is_flag=True, help='Go on though the plan does not fit.'
  ),
)
out = click.option(
  '--out', metavar='FILE', help='Default: NAME.delta.safetensors.'
)
project = click.option(
  '--project', envvar='CLOUDSDK_CORE_PROJECT', help='The project that pays.'
)
zones = click.option(
  '--zone', 'zones', multiple=True, help='Where to look; repeatable.'
)
accelerator = click.option(
  '--accelerator',
  required=True,
  metavar='TYPE',
  help='Such as v4-8, v5e-16, v5p-128 or v5p:4x4x4.',
)
resource = together(
  accelerator,
  click.option(
    '--zone', envvar='CLOUDSDK_COMPUTE_ZONE', help='Such as us-central2-b.'
  ),
  project,
  click.option(
    '--provisioning',
    type=click.Choice(state_file.PROVISIONING),
    default='on-demand',
    show_default=True,
  ),
  click.option(
    '--max-hours',
    type=float,
    default=24.0,
    show_default=True,
    help='Lifetime of the TPU, the time in a queue included.',
  ),
  click.option(
    '--labels', multiple=True, metavar='K=V', help='Of the TPU; repeatable.'
  ),
  click.option('--runtime-version', help='Software that the TPU boots.'),
  click.option('--network'),
  click.option('--subnetwork'),
  click.option(
    '--internal-ips', is_flag=True, help='No addresses outside the network.'
  ),
  click.option('--service-account', help='Account that the workers run as.'),
  click.option(
    '--package', metavar='PATH', help='Wheel or checkout to install.'
  ),
  click.option('--constraints', metavar='FILE', help='Pinned versions.'),
  click.option(
    '--t5x-commit', default=stock_mains.T5X_COMMIT, show_default=True
  ),
  click.option('--airio-commit', default='HEAD', show_default=True),
  click.option('--jestimator-commit', default='HEAD', show_default=True),
)


def new_run(name: str, given: Mapping[str, Any]) -> Run:
  """Returns a run without writing anything.

  Args:
    name: of the run.
    given: values of the options of `resource`.

  Raises:
    ValueError: if a value is missing or cannot be right.
  """
  if state_file.path(name).exists():
    raise ValueError(
      f'{state_file.path(name)} is there, so {name!r} may exist: see '
      f'`status {name}`, go on with `resume {name}`, or `delete {name}`'
    )
  hours = before_cost.check_hours(given['max_hours'])
  return Run(
    name=name,
    zone=before_cost.check_zone(given['zone']),
    project=before_cost.check_project(given['project']),
    accelerator=slices.parse(given['accelerator']).accelerator_type,
    provisioning=given['provisioning'],
    max_hours=hours,
    expires=whole_run.deadline(hours),
    labels=before_cost.labels(given['labels']),
    options={key: given[key] for key in state_file.OPTIONS if given[key]},
    package=parcels.choose(given['package'], given['constraints']),
    commits={
      key: given[f'{key}_commit'] for key in ('t5x', 'airio', 'jestimator')
    },
  )
