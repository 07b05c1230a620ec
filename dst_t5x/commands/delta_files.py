"""What the commands about deltas share: files in, files out, what is said."""

import json
import os
from collections.abc import Mapping
from typing import Any

import click

out_option = click.option(
  '--out', required=True, metavar='FILE', help='Where to write the result.'
)
overwrite_option = click.option(
  '--overwrite', is_flag=True, help='Replace FILE if it exists.'
)
needed_seed_option = click.option(
  '--seed', metavar='PATH', help='Seed, if a file was written against it.'
)


def read(file: str, seed: str | None, params: Any = None) -> Any:
  """Reads a delta, with the seed's parameters if a seed is named.

  Args:
    file: path of the delta.
    seed: path of the seed, or None.
    params: the seed's parameters, if they were read already.

  Returns:
    The delta.

  Raises:
    DeltaError: if it cannot be read.
    SeedError: if the seed cannot.
  """
  from dst_t5x import seeds
  from dst_t5x.delta.file import container

  if params is None and seed is not None:
    params = seeds.read(seed).params
  return container.read(file, seed=params)


def check_out(out: str, *, overwrite: bool) -> None:
  """Raises before the work if its result could not be written.

  Args:
    out: path of the result.
    overwrite: whether a file may be replaced.

  Raises:
    ValueError: if it exists and may not be, or has another ending.
  """
  if os.path.exists(out) and not overwrite:
    raise ValueError(f'{out} exists; --overwrite replaces it')
  if not out.endswith('.safetensors'):
    raise ValueError(f'{out}: the name must end in .safetensors')


def report(fields: Mapping[str, Any], *, as_json: bool) -> None:
  """Prints what was done.

  Args:
    fields: by name; None is printed in JSON only.
    as_json: JSON instead of lines.
  """
  if as_json:
    click.echo(json.dumps(fields, indent=2))
  else:
    print_fields(fields)


def print_fields(fields: Mapping[str, Any]) -> None:
  """Prints a line for every field that is not None.

  Args:
    fields: by name; those of a mapping each get a line.
  """
  for name, value in fields.items():
    label = name.replace('_', ' ')
    if isinstance(value, Mapping):
      print_fields({f'{label}, {key}': each for key, each in value.items()})
    elif value is not None:
      text = f'{value:.4g}' if isinstance(value, float) else str(value)
      click.echo(f'{label}: {text}')
