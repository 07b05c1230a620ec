"""`dst-t5x infer`: text in, text out."""

import json
import pathlib
import sys

import click

from dst_t5x.commands import common


@click.command()
@click.argument('prompts', nargs=-1)
@common.seed_option
@common.delta_option
@click.option(
  '--input',
  'input_file',
  metavar='FILE',
  help="One prompt a line; '-' reads standard input.",
)
@click.option('--inputs-length', type=int, default=256, show_default=True)
@click.option('--targets-length', type=int, default=256, show_default=True)
@click.option('--batch-size', type=int, default=32, show_default=True)
@common.beam_option
@common.json_option
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
  """Decode PROMPTS, a file, or standard input, one output a line.

  With --json each line is an object with "inputs" and "prediction".
  """
  texts = list(prompts)
  if input_file is not None:
    if texts:
      raise click.UsageError('give prompts or --input, not both')
    texts = _lines(input_file)
  elif not texts:
    texts = _lines('-')
  if not texts:
    raise click.UsageError('there is nothing to decode')
  from dst_t5x.standalone import evaluation

  model = common.model(seed, delta)
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


def _lines(path: str) -> list[str]:
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
