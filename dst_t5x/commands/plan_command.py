"""`dst-t5x plan`: what a run will need on a TPU slice, without one."""

import json
import os
import pathlib
from typing import Any

import click

from dst_t5x.commands import shared_options

_HELP = """Show what a run needs on a TPU slice, without having one.

\b
  dst-t5x plan --model xxl --topology v5p:4x4x4 --epsilon 1e-6

Compiles T5X's own train step for the slice, with the method and without, and
shows memory, whether it fits, collectives, and the method's share. That needs
T5X and libtpu, 8 processor minutes for base, 20 for XL and XXL, and 10 GB of
memory; without either, or with --bytes-only, it only counts the bytes that are
kept.

Any flag that T5X takes for gin, --gin_file=… and --gin.NAME=VALUE, may be
given, too: give a run's own flags to plan that run. NUM_PARTITIONS is chosen
if nothing says it.
"""
# How much of a device may be taken before activations, for a choice of
# NUM_PARTITIONS that leaves them room.
_ROOM = 0.5


@click.command(help=_HELP, context_settings={'ignore_unknown_options': True})
@click.option(
  '--model',
  metavar='SIZE',
  help='small, base, large, xl, xxl, or a gin file of models/.',
)
@click.option(
  '--topology',
  required=True,
  metavar='SLICE',
  help='Such as v5p:4x4x4, or its accelerator type, v5p-128.',
)
@click.option('--epsilon', type=float, help='Fraction of free parameters.')
@click.option('--budget', type=int, help='Their count, instead of --epsilon.')
@click.option('--method', metavar='NAME', help='Method; dst by default.')
@click.option('--batch-size', type=int, help='Rows of a step; 128 by default.')
@click.option(
  '--num-partitions', type=int, help='Ways that each parameter is split.'
)
@click.option('--bytes-only', is_flag=True, help='Compile nothing.')
@click.option(
  '--no-baseline',
  is_flag=True,
  help='Do not compile full fine-tuning, too; saves nearly half of the time.',
)
@shared_options.json_option
@click.argument(
  'flags', nargs=-1, type=click.UNPROCESSED, metavar='[T5X FLAG]…'
)
def plan(
  topology: str,
  bytes_only: bool,
  no_baseline: bool,
  as_json: bool,
  flags: tuple[str, ...],
  **options: Any,
) -> None:
  """Plans; its help is _HELP."""
  # Nothing here needs an accelerator, and one that is there stays free.
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  from dst_t5x.planning import (
    compile_process,
    recipe_plan,
    report,
    slices,
    virtual_slice,
  )
  from dst_t5x.recipes import recipe

  slice_ = slices.parse(topology)
  line = [*_flags(**options), *flags]
  found = recipe.read(recipe.flags(line))
  chosen = None
  if not any('NUM_PARTITIONS=' in flag for flag in line):
    chosen = recipe_plan.smallest_partitions(found, slice_, room=_ROOM)
    chosen = chosen or recipe_plan.smallest_partitions(found, slice_)
  if chosen is not None:
    line.append(f'--gin.NUM_PARTITIONS={chosen}')
    found = found._replace(num_partitions=chosen)
  counted = recipe_plan.of(found, slice_)
  why = virtual_slice.missing()
  if bytes_only:
    why = 'asked for bytes only'
  elif why is None and not counted.fits:
    why = 'what is kept alone does not fit'
  summary = None
  if why is None:
    compiled = _with_progress(
      compile_process.run, slice_, line, not no_baseline, quiet=as_json
    )
    summary = report.summary(compiled)
  if as_json:
    about = {
      'model': options['model'],
      'flags': line,
      'num_partitions_chosen_here': chosen is not None,
      'counted': counted.to_json(),
      'compiled': summary,
      'not_compiled_because': why,
    }
    click.echo(json.dumps(about, indent=2))
    return
  rows = counted.rows()
  if summary is not None:
    rows = [*rows[:-1], *report.rows(summary)]
  _print(rows)
  if chosen is not None and chosen > 1:
    click.echo(
      f'Give the run --gin.NUM_PARTITIONS={chosen}: it was chosen here.'
    )
  if why is not None:
    click.echo(f'Bytes that are kept, not compiled: {why}.')


def _flags(
  model: str | None,
  epsilon: float | None,
  budget: int | None,
  method: str | None,
  batch_size: int | None,
  num_partitions: int | None,
) -> list[str]:
  """Returns T5X's flags for our options."""
  found = []
  if model is not None:
    found.append(f'--gin_file={_model_file(model)}')
  if method is not None:
    found.append(f'--gin_file=methods/{method}.gin')
  for name, value in (
    ('EPSILON', epsilon),
    ('BUDGET', budget),
    ('BATCH_SIZE', batch_size),
    ('NUM_PARTITIONS', num_partitions),
  ):
    if value is not None:
      found.append(f'--gin.{name}={value!r}')
  return found


def _model_file(name: str) -> str:
  """Returns the gin file of a size."""
  if name.endswith('.gin') or '/' in name:
    return name
  from dst_t5x.recipes import gin_path

  stems = {
    path.stem.removeprefix('t5_1_1_'): path
    for path in pathlib.Path(gin_path.root(), 'models').glob('*.gin')
  }
  stem = name.removeprefix('t5_1_1_')
  if stem not in stems:
    raise ValueError(
      f'--model {name!r}: there are {", ".join(sorted(stems))}; or give a gin '
      'file'
    )
  return f'models/{stems[stem].name}'


def _with_progress(
  run: Any, slice_: Any, flags: list[str], baseline: bool, *, quiet: bool
) -> Any:
  if quiet:
    return run(slice_, flags, baseline=baseline)
  import rich.console
  import rich.progress

  with rich.progress.Progress(
    rich.progress.SpinnerColumn(),
    rich.progress.TextColumn('{task.description}'),
    rich.progress.TimeElapsedColumn(),
    console=rich.console.Console(stderr=True),
    transient=True,
  ) as progress:
    task = progress.add_task('importing T5X')

    def on_stage(stage: str) -> None:
      progress.update(task, description=stage)

    return run(slice_, flags, baseline=baseline, on_stage=on_stage)


def _print(rows: list[tuple[str, str]]) -> None:
  import rich.box
  import rich.console
  import rich.table

  table = rich.table.Table(box=rich.box.SIMPLE, show_header=False)
  table.add_column(no_wrap=True)
  table.add_column(overflow='fold')
  for row in rows:
    table.add_row(*row)
  rich.console.Console().print(table)
