"""`dst-t5x delta`: what a delta does to parameters in files."""

import math

import click

from dst_t5x.commands import (
  compose_command,
  delta_files,
  export_command,
  import_command,
  overlap_command,
  shared_options,
  show_command,
)


@click.group()
def delta() -> None:
  """Inspect, check, take, apply, compose, compare and export deltas.

  Every subcommand checks all it can before it writes, and writes the whole file
  or nothing.
  """


for _command in (
  compose_command.compose,
  export_command.export,
  import_command.import_,
  show_command.info,
  export_command.merge,
  overlap_command.overlap,
  show_command.verify,
):
  delta.add_command(_command)


@delta.command()
@click.argument('file')
@shared_options.seed_option
@delta_files.out_option
@delta_files.overwrite_option
@shared_options.json_option
def apply(
  file: str, seed: str, out: str, overwrite: bool, as_json: bool
) -> None:
  """Write the seed with the delta FILE applied.

  The seed is read and written one parameter at a time, so it may be larger than
  memory.
  """
  from dst_t5x import seeds
  from dst_t5x.delta.file import container
  from dst_t5x.seeds import streaming

  delta_files.check_out(out, overwrite=overwrite)
  opened = seeds.open_source(seed)
  read = container.read(file, seed=opened)
  size = streaming.apply(
    opened, read, out, config=opened.config, overwrite=True
  )
  delta_files.report(
    {
      'out': out,
      'bytes': size,
      'positions': read.size,
      'fingerprint': read.info.result_fingerprint,
    },
    as_json=as_json,
  )


@delta.command()
@click.argument('params')
@click.argument('file')
@shared_options.seed_option
@delta_files.out_option
@delta_files.overwrite_option
@shared_options.json_option
def revert(
  params: str, file: str, seed: str, out: str, overwrite: bool, as_json: bool
) -> None:
  """Write the seed that PARAMS were before the delta FILE was applied."""
  from dst_t5x import delta as delta_lib
  from dst_t5x import seeds

  delta_files.check_out(out, overwrite=overwrite)
  base, adapted = seeds.read(seed), seeds.read(params)
  read = delta_files.read(file, seed, base.params)
  result = delta_lib.revert(adapted.params, read, base.params)
  size = seeds.write(out, result, config=adapted.config)
  delta_files.report(
    {
      'out': out,
      'bytes': size,
      'positions': read.size,
      'fingerprint': read.info.seed_fingerprint,
    },
    as_json=as_json,
  )


@delta.command()
@click.argument('seed')
@click.argument('tuned')
@delta_files.out_option
@delta_files.overwrite_option
@click.option(
  '--max-fraction',
  type=click.FloatRange(0.0, 1.0),
  default=1.0,
  show_default=True,
  help='Refuse if more of the parameters differ.',
)
@click.option(
  '--method', default='diff', show_default=True, help='Name to record.'
)
@click.option(
  '--differences',
  is_flag=True,
  help='Store values as differences from the seed: smaller, but FILE can only '
  'be read together with the seed.',
)
@shared_options.json_option
def diff(
  seed: str,
  tuned: str,
  out: str,
  overwrite: bool,
  max_fraction: float,
  method: str,
  differences: bool,
  as_json: bool,
) -> None:
  """Write the delta between the parameters in SEED and TUNED."""
  from dst_t5x import delta as delta_lib
  from dst_t5x import seeds
  from dst_t5x.delta.file import container

  delta_files.check_out(out, overwrite=overwrite)
  base = seeds.read(seed)
  found = delta_lib.diff(
    base.params,
    seeds.read(tuned).params,
    method=method,
    max_fraction=max_fraction,
  )
  against = base.params if differences else None
  size = container.write(found, out, seed=against)
  total = sum(math.prod(entry.shape) for entry in found.entries.values())
  delta_files.report(
    {
      'out': out,
      'bytes': size,
      'positions': found.size,
      'parameters': total,
      'fraction': found.size / total if total else 0.0,
    },
    as_json=as_json,
  )


@delta.command()
@click.argument('params')
@click.argument('old')
@click.argument('new')
@shared_options.seed_option
@delta_files.out_option
@delta_files.overwrite_option
@shared_options.json_option
def swap(
  params: str,
  old: str,
  new: str,
  seed: str,
  out: str,
  overwrite: bool,
  as_json: bool,
) -> None:
  """Write PARAMS with the delta NEW in place of the delta OLD."""
  from dst_t5x import delta as delta_lib
  from dst_t5x import seeds

  delta_files.check_out(out, overwrite=overwrite)
  base, adapted = seeds.read(seed), seeds.read(params)
  before, after = (
    delta_files.read(file, seed, base.params) for file in (old, new)
  )
  result = delta_lib.swap(adapted.params, before, after, base.params)
  size = seeds.write(out, result, config=adapted.config)
  delta_files.report(
    {
      'out': out,
      'bytes': size,
      'positions': after.size,
      'fingerprint': after.info.result_fingerprint,
    },
    as_json=as_json,
  )
