"""`dst-t5x delta export` and `merge`: out of a T5X run, into a file or a model.

Both take a delta checkpoint, MODEL_DIR/checkpoint_N, and its seed. T5X is not
needed.
"""

import json
import os
from typing import Any

import click

from dst_t5x.commands import common

# As in `seed_layouts.writing`, which is not imported for `--help`.
_LAYOUTS = ('t5x', 'orbax', 'hf', 'dst_t5x')

_seed_option = click.option(
  '--seed',
  metavar='PATH',
  help='Where the seed is now; unless given, where the checkpoint says.',
)


@click.command()
@click.argument('checkpoint')
@click.argument('out')
@_seed_option
@click.option('--overwrite', is_flag=True, help='Replace OUT if it exists.')
@click.option(
  '--differences',
  is_flag=True,
  help='Store values as differences from the seed: smaller, but OUT can only '
  'be read together with the seed.',
)
@common.json_option
def export(
  checkpoint: str,
  out: str,
  seed: str | None,
  overwrite: bool,
  differences: bool,
  as_json: bool,
) -> None:
  """Write the delta in CHECKPOINT of a T5X run to the file OUT."""
  from dst_t5x import delta_checkpoint, delta_export, delta_file

  if not out.endswith('.safetensors'):
    raise ValueError(f'{out}: the name must end in .safetensors')
  if os.path.exists(out) and not overwrite:
    raise ValueError(f'{out} exists; --overwrite replaces it')
  opened = delta_checkpoint.must_open(checkpoint)
  found = delta_export.adapted(opened, seed)
  against = found.seed if differences else None
  size = delta_file.write(found.delta, out, seed=against)
  sizes = delta_checkpoint.sizes(opened)
  _report(
    {
      'out': out,
      'bytes': size,
      'positions': found.delta.size,
      'budget': found.delta.info.budget,
      'method': found.delta.info.method,
      'steps': found.delta.info.step,
      'seed_fingerprint': found.delta.info.seed_fingerprint,
      'result_fingerprint': found.delta.info.result_fingerprint,
      'checkpoint_bytes': sizes._asdict(),
    },
    as_json,
  )


@click.command()
@click.argument('checkpoint')
@click.argument('out')
@click.option(
  '--to',
  'layout',
  default='t5x',
  show_default=True,
  type=click.Choice(_LAYOUTS),
  help='Layout to write: T5X before Orbax, Orbax as T5X writes it, Hugging '
  "Face, or dst-t5x's own.",
)
@_seed_option
@common.json_option
def merge(
  checkpoint: str, out: str, layout: str, seed: str | None, as_json: bool
) -> None:
  """Write the seed with the delta in CHECKPOINT as a whole model.

  With --to t5x and --to orbax the result is OUT/checkpoint_<step>, or OUT
  itself if that is its name; stock T5X restores it. Nothing is overwritten.
  """
  from dst_t5x import delta_checkpoint, delta_export
  from dst_t5x.seed_layouts import writing

  found = delta_export.adapted(delta_checkpoint.must_open(checkpoint), seed)
  writing.check_target(layout, out, found.step)
  written = writing.write(
    layout, found.params, out, step=found.step, config=found.config
  )
  _report(
    {
      'out': written,
      'layout': layout,
      'step': found.step,
      'positions': found.delta.size,
      'fingerprint': found.delta.info.result_fingerprint,
    },
    as_json,
  )


def _report(fields: dict[str, Any], as_json: bool) -> None:
  if as_json:
    click.echo(json.dumps(fields, indent=2))
    return
  sizes = fields.pop('checkpoint_bytes', {})
  for name, value in fields.items():
    if value is not None:
      click.echo(f'{name.replace("_", " ")}: {value}')
  for name, value in sizes.items():
    click.echo(f'checkpoint bytes, {name.replace("_", " ")}: {value}')
