"""`dst-t5x delta export` and `merge`: a delta for others, or a whole model.

Both take a delta file, or a delta checkpoint of T5X, MODEL_DIR/checkpoint_N.
T5X is not needed.
"""

import click

from dst_t5x.commands import delta_files, shared_options
from dst_t5x.seeds import layouts

_FILES = ('dst_t5x', 'plain', 'vllm')

_seed_option = click.option(
  '--seed',
  metavar='PATH',
  help='Where the seed is now; unless given, where the checkpoint says. A file '
  'does not say.',
)


@click.command()
@click.argument('source')
@click.argument('out')
@click.option(
  '--to',
  'layout',
  default='dst_t5x',
  show_default=True,
  type=click.Choice(_FILES),
  help="dst-t5x's own; positions and values as they are, for any reader of "
  "safetensors; or the fields of vLLM's SparseWeightPatch, with Hugging Face's "
  'names.',
)
@_seed_option
@delta_files.overwrite_option
@click.option(
  '--differences',
  is_flag=True,
  help='With --to dst_t5x, store values as differences from the seed: smaller, '
  'but OUT can only be read together with the seed.',
)
@shared_options.json_option
def export(
  source: str,
  out: str,
  layout: str,
  seed: str | None,
  overwrite: bool,
  differences: bool,
  as_json: bool,
) -> None:
  """Write the delta SOURCE to the file OUT.

  SOURCE is MODEL_DIR/checkpoint_N of a T5X run, or a delta file; for a file the
  seed is needed only if values are differences from it.
  """
  from dst_t5x.checkpoint import (
    delta_checkpoint,
    exports,
    part_sizes,
    plain_files,
  )
  from dst_t5x.delta.file import container

  delta_files.check_out(out, overwrite=overwrite)
  if differences and layout != 'dst_t5x':
    raise ValueError(
      f'--differences is for --to dst_t5x; --to {layout} stores values as they '
      'are'
    )
  params, sizes = None, None
  if not exports.is_file(source):
    opened = delta_checkpoint.must_open(source)
    adapted = exports.adapted(opened, seed)
    found, params = adapted.delta, adapted.seed
    sizes = part_sizes.sizes(opened)._asdict()
  elif seed is not None:
    adapted = exports.load(source, seed)
    found, params = adapted.delta, adapted.seed
  elif differences:
    raise ValueError(f'{source}: differences need --seed')
  else:
    found = container.read(source)
  if layout == 'plain':
    size = plain_files.write_plain(found, out)
  elif layout == 'vllm':
    specs = plain_files.specs_of(found, params)
    size = plain_files.write_vllm(found, out, specs)
  else:
    size = container.write(found, out, seed=params if differences else None)
  delta_files.report(
    {
      'out': out,
      'bytes': size,
      'layout': layout,
      'positions': found.size,
      'budget': found.info.budget,
      'method': found.info.method,
      'steps': found.info.step,
      'seed_fingerprint': found.info.seed_fingerprint,
      'result_fingerprint': found.info.result_fingerprint,
      'checkpoint_bytes': sizes,
    },
    as_json=as_json,
  )


@click.command()
@click.argument('source')
@click.argument('out')
@click.option(
  '--to',
  'layout',
  default='t5x',
  show_default=True,
  type=click.Choice(layouts.NAMES),
  help=f'Layout to write: {layouts.TITLES}.',
)
@_seed_option
@shared_options.json_option
def merge(
  source: str, out: str, layout: str, seed: str | None, as_json: bool
) -> None:
  """Write the seed with the delta SOURCE in it as a whole model.

  SOURCE is MODEL_DIR/checkpoint_N of a T5X run, or a delta file.

  With --to t5x and --to orbax the result is OUT/checkpoint_<step>, or OUT
  itself if that is its name; stock T5X restores it. Nothing is overwritten.
  """
  from dst_t5x.checkpoint import exports
  from dst_t5x.seeds import conversion

  found = exports.load(source, seed)
  conversion.check_target(layout, out, found.step)
  written = conversion.write(
    layout, found.params, out, step=found.step, config=found.config
  )
  delta_files.report(
    {
      'out': written,
      'layout': layout,
      'step': found.step,
      'positions': found.delta.size,
      'fingerprint': found.delta.info.result_fingerprint,
    },
    as_json=as_json,
  )
