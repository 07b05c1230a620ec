"""What is refused before anything costs money."""

import math
import pathlib
import re
from collections.abc import Sequence

import click

from dst_t5x.planning import slices
from dst_t5x.recipes import worker_flags

from . import command_lines, text_columns
from .state_file import Run


def check_zone(text: str | None) -> str:
  """Refuses what is no zone.

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
  """Refuses a missing project, as gcloud's default one may change.

  Raises:
    ValueError: if it is missing.
  """
  if not text:
    raise ValueError('give --project, or set CLOUDSDK_CORE_PROJECT')
  return text


def check_hours(hours: float) -> float:
  """Refuses a lifetime without an end.

  Raises:
    ValueError: if it is not above 0 and finite.

  Example:
    >>> check_hours(1.5)
    1.5
  """
  if not (math.isfinite(hours) and hours > 0):
    raise ValueError(f'--max-hours must be finite and above 0, not {hours}')
  return hours


def labels(given: Sequence[str]) -> dict[str, str]:
  """Reads --labels.

  Args:
    given: texts such as 'team=nlp,user=me'.

  Returns:
    Keys and values.

  Raises:
    ValueError: if Cloud TPU would not accept one, or it is ours.

  Example:
    >>> labels(['team=nlp,user=me'])
    {'team': 'nlp', 'user': 'me'}
  """
  pairs = {}
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
    if key == command_lines.EXPIRES:
      raise ValueError(f'label {key} is set by --max-hours')
    pairs[key] = value
  return pairs


def check_output(main: str, flags: Sequence[str]) -> None:
  """Refuses a main whose output would die with the TPU.

  Args:
    main: 'train', 'eval' or 'infer'.
    flags: T5X's.

  Raises:
    ValueError: if the main does not write to a bucket.
  """
  folder = worker_flags.output_folder(main, flags)
  if folder and folder.startswith('gs://'):
    return
  name = worker_flags.OUTPUT_MACROS[main]
  problem = f'{name} is {folder!r}' if folder else f'no flag binds {name}'
  raise ValueError(
    f'{problem}: give --gin.{name}="\'gs://BUCKET/FOLDER\'", because a '
    "worker's own disk is deleted with the TPU, also by a preemption; or "
    '--allow-local-model-dir if that is meant'
  )


def check_run(run: Run, *, allow_local: bool, ignore_plan: bool) -> None:
  """Prints the plan of a run, and refuses one that cannot go well.

  Args:
    run: with its main and flags.
    allow_local: let the main write to a worker's disk.
    ignore_plan: accept a run that does not fit into the TPU's memory.

  Raises:
    ValueError: if something is wrong; it says what would work.
  """
  # Imports JAX, which `list` and `delete` can do without.
  from dst_t5x.planning import plan_table, recipe_plan

  for file in run.files:
    worker_flags.check_below(file)
    if not pathlib.Path(file).is_file():
      raise ValueError(f'--file {file} does not exist')
  main = run.main or 'train'
  worker_flags.files_to_copy(run.flags)
  worker_flags.for_workers(run.flags)
  if not allow_local:
    check_output(main, run.flags)
  plan = recipe_plan.of_recipe(run.flags, slices.parse(run.accelerator))
  click.echo(text_columns.columns(plan_table.rows(plan)))
  # The plan is of a training, which takes more memory than the other mains.
  if main == 'train' and not plan.fits and not ignore_plan:
    raise ValueError(
      f'this does not fit on {run.accelerator}: take a larger one, or split '
      'the parameters with --gin.NUM_PARTITIONS, or go on with --ignore-plan'
    )
