"""`dst-t5x infer`: what a model writes for prompts."""

import json
import pathlib
import sys

import click

from dst_t5x.commands import adapted_models, shared_options


@click.command()
@click.argument('prompts', nargs=-1)
@shared_options.seed_option
@shared_options.delta_option
@click.option(
  '--input',
  'input_file',
  metavar='FILE',
  help="Read prompts from this file, one a line; '-' is standard input.",
)
@shared_options.length_option('inputs', 256)
@shared_options.length_option('targets', 256)
@click.option(
  '--batch-size',
  type=int,
  default=32,
  show_default=True,
  help='Decode so many prompts at a time.',
)
@shared_options.beam_size_option(1)
@shared_options.json_option
def infer(
  prompts: tuple[str, ...],
  seed: str,
  delta: str | None,
  input_file: str | None,
  inputs_length: int,
  targets_length: int,
  batch_size: int,
  beam_size: int,
  as_json: bool,
) -> None:
  """Print what a seed, with or without a delta, writes for each prompt.

  Prompts are PROMPTS, the lines of --input, or else those of standard input;
  each output takes a line. With --json each line is an object with "inputs" and
  "prediction".
  """
  texts = list(prompts)
  if input_file is not None:
    if texts:
      raise click.UsageError('give prompts or --input, not both')
    texts = _read_prompts(input_file)
  elif not texts:
    texts = _read_prompts('-')
  if not texts:
    raise click.UsageError('there is nothing to decode')
  from dst_t5x.standalone import evaluation

  model = adapted_models.load(seed, delta)
  outputs = evaluation.predict_texts(
    model.config,
    model.params,
    texts,
    input_length=inputs_length,
    max_decode_len=targets_length,
    batch_size=batch_size,
    beam_size=beam_size,
  )
  for text, output in zip(texts, outputs, strict=True):
    if as_json:
      row = {'inputs': text, 'prediction': output}
      click.echo(json.dumps(row, ensure_ascii=False))
    else:
      click.echo(output)


def _read_prompts(path: str) -> list[str]:
  """Returns the lines of a file, or of standard input for '-'."""
  if path == '-':
    if sys.stdin.isatty():
      raise click.UsageError('give prompts, --input FILE, or standard input')
    text = sys.stdin.buffer.read().decode('utf-8')
  else:
    text = pathlib.Path(path).read_text('utf-8')
  # Only at '\n': text may hold other characters that splitlines() breaks at.
  lines = text.split('\n')
  if lines and not lines[-1]:
    lines.pop()
  return [line.removesuffix('\r') for line in lines]
