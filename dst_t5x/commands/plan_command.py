"""`dst-t5x plan`: what a run will need on a TPU slice, without using one."""

import functools
import json
import os
import pathlib
from typing import Any

import click

from dst_t5x.commands import cli, shared_options

_HELP = """Show what a run needs on a TPU slice, without using one.

\b
  dst-t5x plan --model xxl --topology v5p:4x4x4 --epsilon 1e-6

Compiles T5X's own train step for the slice, with the method and without, and
shows memory, whether it fits, collectives, and the method's share. This needs
T5X and libtpu, about 8 processor minutes for base, 20 for XL and XXL, and 10 GB
of memory. Without either package, or with --bytes-only, it only counts the
bytes that are kept.

libtpu may lie in a folder of its own, which pip install --no-deps --target
FOLDER libtpu makes: name it by --libtpu or DST_T5X_LIBTPU. Installed beside
JAX, it makes JAX take this machine for one with a TPU.

The exit status is 0 if the run fits, as far as that was found out, 1 if it does
not fit, and 2 for a wrong argument.

T5X's flags, such as --gin_file=… and --gin.NAME=VALUE, may be given, too: give
a run's own flags to plan that run. NUM_PARTITIONS is chosen here unless an
option, a flag or a gin file of your own says it.
"""
# Where NUM_PARTITIONS is chosen here, what is kept may take this fraction of a
# device's memory; the rest is for activations.
_ROOM = 0.5


class DoesNotFitError(cli.UserError):
  """The run that was planned does not fit on the slice."""

  exit_code = 1


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
@click.option(
  '--budget', type=int, help='Number of free parameters, instead of --epsilon.'
)
@click.option('--method', metavar='NAME', help='Method; dst by default.')
@click.option('--batch-size', type=int, help='Rows of a step; 128 by default.')
@click.option(
  '--num-partitions', type=int, help='Ways to split each parameter.'
)
@click.option(
  '--bytes-only',
  is_flag=True,
  help='Count the bytes that are kept; compile nothing.',
)
@click.option(
  '--no-baseline',
  is_flag=True,
  help='Do not compile full fine-tuning, too; takes about half the time.',
)
@click.option(
  '--libtpu',
  'libtpu_folder',
  metavar='FOLDER',
  help='Compile with the libtpu in this folder, instead of the one in '
  'DST_T5X_LIBTPU or the installed one.',
)
@shared_options.json_option
@click.argument(
  'flags', nargs=-1, type=click.UNPROCESSED, metavar='[T5X FLAG]…'
)
def plan(
  topology: str,
  bytes_only: bool,
  no_baseline: bool,
  libtpu_folder: str | None,
  as_json: bool,
  flags: tuple[str, ...],
  **options: Any,
) -> None:
  """Plans a run; the command's help is `_HELP`."""
  # Nothing here needs this machine's accelerators, which stay free.
  os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  from dst_t5x.planning import (
    compile_process,
    plan_table,
    recipe_plan,
    report,
    slices,
    tpu_compiler,
    virtual_slice,
  )
  from dst_t5x.recipes import gin_flags, macros, recipe

  slice_ = slices.parse(topology)
  line = gin_flags.normal([*_flags(**options), *flags])
  parsed = gin_flags.parse(line)
  planned = recipe.read(parsed)
  chosen = None
  if 'NUM_PARTITIONS' not in macros.bound_by_user(parsed):
    chosen = recipe_plan.smallest_partitions(planned, slice_, room=_ROOM)
    chosen = chosen or recipe_plan.smallest_partitions(planned, slice_)
  if chosen is not None:
    line.append(f'--gin.NUM_PARTITIONS={chosen}')
    planned = planned._replace(num_partitions=chosen)
  counted = recipe_plan.of(planned, slice_)
  too_large = plan_table.too_large(counted)
  compiler, why = None, 'asked for bytes only'
  if not bytes_only:
    compiler = tpu_compiler.find(libtpu_folder)
    why = virtual_slice.missing(compiler)
  if why is None and too_large is not None:
    why = 'what is kept alone does not fit'
  summary = None
  if why is None and compiler is not None:
    compiled = _with_progress(
      functools.partial(
        compile_process.run,
        slice_,
        line,
        compiler=compiler,
        baseline=not no_baseline,
      ),
      quiet=as_json,
    )
    summary = report.summary(compiled)
    too_large = report.too_large(summary, slice_)
  if as_json:
    about = {
      'model': options['model'],
      'flags': line,
      'num_partitions_chosen_here': chosen is not None,
      'fits': too_large is None,
      'does_not_fit_because': too_large,
      'counted': counted.to_json(),
      'compiled': summary,
      'not_compiled_because': why,
    }
    click.echo(json.dumps(about, indent=2))
  else:
    rows = plan_table.rows(counted)
    if summary is not None:
      rows = [*rows[:-1], *report.rows(summary)]
    _print(rows)
    if chosen is not None and chosen > 1:
      click.echo(
        f'Give the run --gin.NUM_PARTITIONS={chosen}: it was chosen here.'
      )
    if why is not None:
      click.echo(f'Bytes that are kept, not compiled: {why}.')
  if too_large is not None:
    raise DoesNotFitError(too_large)


def _flags(
  model: str | None,
  epsilon: float | None,
  budget: int | None,
  method: str | None,
  batch_size: int | None,
  num_partitions: int | None,
) -> list[str]:
  """Returns our options as flags of T5X."""
  flags = []
  if model is not None:
    flags.append(f'--gin_file={_model_file(model)}')
  if method is not None:
    flags.append(f'--gin_file=methods/{method}.gin')
  for name, value in (
    ('EPSILON', epsilon),
    ('BUDGET', budget),
    ('BATCH_SIZE', batch_size),
    ('NUM_PARTITIONS', num_partitions),
  ):
    if value is not None:
      flags.append(f'--gin.{name}={value!r}')
  return flags


def _model_file(name: str) -> str:
  """Returns the name of the gin file of a model's size."""
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


def _with_progress(run: Any, *, quiet: bool) -> Any:
  """Calls `run`, and shows what it is doing unless `quiet`."""
  if quiet:
    return run()
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

    return run(on_stage=on_stage)


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
