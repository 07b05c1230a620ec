"""`dst-t5x delta`: what a delta is, and what it does to parameters in files."""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import click

from dst_t5x.commands import common, delta_export

_out_option = click.option(
  '--out', required=True, metavar='FILE', help='Where to write the result.'
)
_overwrite_option = click.option(
  '--overwrite', is_flag=True, help='Replace FILE if it exists.'
)


@click.group()
def delta() -> None:
  """Inspect, check, take, apply, swap and export deltas.

  Every subcommand checks all it can before it writes, and writes the whole file
  or nothing.
  """


delta.add_command(delta_export.export)
delta.add_command(delta_export.merge)


@delta.command()
@click.argument('file')
@click.option(
  '--seed', metavar='PATH', help='Seed, if the file was written against it.'
)
@common.json_option
def info(file: str, seed: str | None, as_json: bool) -> None:
  """Show what FILE says about itself and what it holds."""
  from dst_t5x import delta_file

  read = _read(file, seed)
  total = sum(math.prod(entry.shape) for entry in read.entries.values())
  sections = delta_file.sections(file)
  about = {
    'file': file,
    'bytes': sum(sections.values()),
    'positions': read.size,
    'parameters': total,
    'fraction': read.size / total if total else 0.0,
    **_fields(read.info),
    'sections': sections,
    'tensors': {
      path: {
        'dtype': entry.dtype.name,
        'shape': list(entry.shape),
        'positions': entry.size,
      }
      for path, entry in read.entries.items()
    },
  }
  if as_json:
    click.echo(json.dumps(about, indent=2))
    return
  _print_fields({**about, 'sections': None, 'tensors': None})
  _print_parameters(read.entries)


@delta.command()
@click.argument('file')
@click.option(
  '--seed',
  metavar='PATH',
  help="Seed to check against, or 'bundled'; without it the file alone is "
  'checked.',
)
@common.json_option
def verify(file: str, seed: str | None, as_json: bool) -> None:
  """Check FILE, and that it turns the seed into what it says."""
  from dst_t5x import delta as delta_lib
  from dst_t5x import seeds

  params = None if seed is None else seeds.read(seed).params
  read = _read(file, seed, params)
  if params is not None:
    delta_lib.revert(delta_lib.apply(params, read), read, params)
  _report(
    {
      'file': file,
      'intact': True,
      'seed': seed,
      'fits_seed': None if seed is None else True,
      'positions': read.size,
      'result_fingerprint': read.info.result_fingerprint,
    },
    as_json,
  )


@delta.command()
@click.argument('file')
@common.seed_option
@_out_option
@_overwrite_option
@common.json_option
def apply(
  file: str, seed: str, out: str, overwrite: bool, as_json: bool
) -> None:
  """Write the seed with the delta FILE applied."""
  from dst_t5x import delta as delta_lib
  from dst_t5x import seeds

  _check_out(out, overwrite)
  base = seeds.read(seed)
  read = _read(file, seed, base.params)
  params = delta_lib.apply(base.params, read)
  size = seeds.write(out, params, config=base.config)
  _report(
    {
      'out': out,
      'bytes': size,
      'positions': read.size,
      'fingerprint': read.info.result_fingerprint,
    },
    as_json,
  )


@delta.command()
@click.argument('params')
@click.argument('file')
@common.seed_option
@_out_option
@_overwrite_option
@common.json_option
def revert(
  params: str, file: str, seed: str, out: str, overwrite: bool, as_json: bool
) -> None:
  """Write the seed that PARAMS were before the delta FILE was applied."""
  from dst_t5x import delta as delta_lib
  from dst_t5x import seeds

  _check_out(out, overwrite)
  base, adapted = seeds.read(seed), seeds.read(params)
  read = _read(file, seed, base.params)
  result = delta_lib.revert(adapted.params, read, base.params)
  size = seeds.write(out, result, config=adapted.config)
  _report(
    {
      'out': out,
      'bytes': size,
      'positions': read.size,
      'fingerprint': read.info.seed_fingerprint,
    },
    as_json,
  )


@delta.command()
@click.argument('seed')
@click.argument('tuned')
@_out_option
@_overwrite_option
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
@common.json_option
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
  from dst_t5x import delta_file, seeds

  _check_out(out, overwrite)
  base = seeds.read(seed)
  found = delta_lib.diff(
    base.params,
    seeds.read(tuned).params,
    method=method,
    max_fraction=max_fraction,
  )
  against = base.params if differences else None
  size = delta_file.write(found, out, seed=against)
  total = sum(math.prod(entry.shape) for entry in found.entries.values())
  _report(
    {
      'out': out,
      'bytes': size,
      'positions': found.size,
      'parameters': total,
      'fraction': found.size / total if total else 0.0,
    },
    as_json,
  )


@delta.command()
@click.argument('params')
@click.argument('old')
@click.argument('new')
@common.seed_option
@_out_option
@_overwrite_option
@common.json_option
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

  _check_out(out, overwrite)
  base, adapted = seeds.read(seed), seeds.read(params)
  before, after = (_read(file, seed, base.params) for file in (old, new))
  result = delta_lib.swap(adapted.params, before, after, base.params)
  size = seeds.write(out, result, config=adapted.config)
  _report(
    {
      'out': out,
      'bytes': size,
      'positions': after.size,
      'fingerprint': after.info.result_fingerprint,
    },
    as_json,
  )


def _read(file: str, seed: str | None, params: Any = None) -> Any:
  """Reads a delta, with the seed's parameters if a seed is named."""
  from dst_t5x import delta_file, seeds

  if params is None and seed is not None:
    params = seeds.read(seed).params
  return delta_file.read(file, seed=params)


def _check_out(out: str, overwrite: bool) -> None:
  # Before the work, not after it.
  if os.path.exists(out) and not overwrite:
    raise ValueError(f'{out} exists; --overwrite replaces it')
  if not out.endswith('.safetensors'):
    raise ValueError(f'{out}: the name must end in .safetensors')


def _fields(info: Any) -> dict[str, Any]:
  return {name: getattr(info, name) for name in info.__dataclass_fields__}


def _report(fields: Mapping[str, Any], as_json: bool) -> None:
  if as_json:
    click.echo(json.dumps(fields, indent=2))
  else:
    _print_fields(fields)


def _print_fields(fields: Mapping[str, Any]) -> None:
  for name, value in fields.items():
    if value is not None:
      text = f'{value:.4g}' if isinstance(value, float) else str(value)
      click.echo(f'{name.replace("_", " ")}: {text}')


def _print_parameters(entries: Mapping[str, Any]) -> None:
  import rich.box
  import rich.console
  import rich.table

  table = rich.table.Table(box=rich.box.SIMPLE)
  for name in ('parameter', 'dtype', 'shape', 'positions', 'fraction'):
    numeric = name in ('positions', 'fraction')
    table.add_column(name, justify='right' if numeric else 'left')
  for path, entry in entries.items():
    if entry.size:
      table.add_row(
        path,
        entry.dtype.name,
        '×'.join(map(str, entry.shape)) or 'scalar',
        str(entry.size),
        f'{entry.size / math.prod(entry.shape):.2g}',
      )
  rich.console.Console().print(table)
