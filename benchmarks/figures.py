"""Remakes the figures that the documentation shows, and records them.

  python benchmarks/figures.py                 lists them, and what they cost
  python benchmarks/figures.py t5x_run         measures one anew
  python benchmarks/figures.py plan_base --from FOLDER

Each figure is measured by its command, word for word, in a folder of its own.
The numbers go into the document that shows them, and, with the command, ε, the
date and the versions, into figures.json and figures.md beside this script.
`--from` reads a folder in which the command was run before. `figure_table.py`
is the table of figures; a test holds that documents and record agree.
"""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

import click
from figure_table import FIGURES, REPOSITORY, Figure, Texts

from dst_t5x.arrays import atomic
from dst_t5x.planning import tpu_compiler
from dst_t5x.recipes import gin_path

JSON = REPOSITORY / 'benchmarks' / 'figures.json'
PAGE = JSON.with_suffix('.md')

_PAGE_TOP = """# Measured figures

Where the figures in the documentation come from. `benchmarks/figures.py`
remakes them, by the commands below, and writes this page, the record
`figures.json` and the numbers in the documents. Processor times, and scores of
trained models, differ a little from machine to machine.
"""


def record() -> dict[str, dict[str, Any]]:
  """Returns what was recorded, by the figure's name."""
  return json.loads(JSON.read_text()) if JSON.exists() else {}


def shown(figure: Figure, text: str) -> re.Match[str]:
  """Returns where a document shows a figure.

  Args:
    figure: a row of the table of figures.
    text: the document.

  Returns:
    The one match, whose groups are the numbers.

  Raises:
    ValueError: unless the document shows the figure once.
  """
  parts = re.split(r'\{(\w+)\}', figure.text)
  pattern = ''.join(
    f'(?P<{part}>[^|\\n]{{1,60}}?)'
    if i % 2
    else r'\s+'.join(re.escape(word) for word in re.split(r'\s+', part))
    for i, part in enumerate(parts)
  )
  found = list(re.finditer(pattern, text))
  if len(found) != 1:
    raise ValueError(
      f'{figure.document} shows this {len(found)} times, not once: '
      f'{figure.text}'
    )
  return found[0]


def put(figure: Figure, texts: Texts) -> None:
  """Puts numbers into the document that shows them.

  Args:
    figure: a row of the table of figures.
    texts: the numbers, by their names in the figure's text.
  """
  path = REPOSITORY / figure.document
  document = path.read_text()
  match = shown(figure, document)
  for name in sorted(texts, key=match.start, reverse=True):
    begin, end = match.span(name)
    document = document[:begin] + texts[name] + document[end:]
  path.write_text(document)


def versions(packages: tuple[str, ...]) -> dict[str, str]:
  """Returns the versions of Python, JAX, this package and others.

  Args:
    packages: names; 't5x' is the commit of its checkout.
  """
  found = {'python': platform.python_version()}
  for name in ('dst_t5x', 'jax', 'jaxlib', 'numpy', *packages):
    if name == 't5x':
      found[name] = _t5x_commit()
    elif name == 'libtpu':
      compiler = tpu_compiler.find()
      found[name] = compiler.version if compiler else 'not there'
    else:
      found[name] = importlib.metadata.version(name)
  return found


def _t5x_commit() -> str:
  root = gin_path.t5x_root()
  if root is None:
    return 'not there'
  done = subprocess.run(
    ['git', '-C', str(root), 'rev-parse', '--short=7', 'HEAD'],
    capture_output=True,
    text=True,
    check=False,
  )
  return done.stdout.strip() or 'of unknown commit'


def run(figure: Figure, folder: pathlib.Path) -> None:
  """Runs a figure's command in a folder.

  Raises:
    subprocess.CalledProcessError: if the command fails.
  """
  (folder / 'benchmarks').symlink_to(REPOSITORY / 'benchmarks')
  environment = {
    **os.environ,
    'PATH': os.pathsep.join(
      (str(pathlib.Path(sys.executable).parent), os.environ['PATH'])
    ),
    'PYTHONPATH': os.pathsep.join(
      (str(REPOSITORY), os.environ.get('PYTHONPATH', ''))
    ).rstrip(os.pathsep),
  }
  subprocess.run(
    ['bash', '-euo', 'pipefail', '-c', figure.command],
    cwd=folder,
    env=environment,
    check=True,
  )


def entry(figure: Figure, folder: pathlib.Path, date: str) -> dict[str, Any]:
  """Returns what is recorded of a figure.

  Args:
    figure: a row of the table of figures.
    folder: where its command was run.
    date: of that run, such as '2026-11-22'.
  """
  return {
    'document': figure.document,
    'epsilon': figure.epsilon,
    'command': figure.command,
    'date': date,
    'versions': versions(figure.packages),
    'cores': os.cpu_count(),
    'texts': dict(figure.read(folder)),
  }


def page(recorded: Mapping[str, Mapping[str, Any]]) -> str:
  """Returns the record as a page for people."""
  parts = [_PAGE_TOP]
  for name in FIGURES:
    if name not in recorded:
      continue
    about = recorded[name]
    text = FIGURES[name].text
    for key, value in about['texts'].items():
      text = text.replace(f'{{{key}}}', value)
    if text.startswith('|'):
      # Rows of a table: the document has its head.
      text = text.replace(' | | ', ' |\n| ')
      shown_text = f'```text\n{text}\n```'
    else:
      shown_text = f'> {text}'
    with_versions = ', '.join(
      f'{package} {version}' for package, version in about['versions'].items()
    )
    epsilon = f'at ε = {about["epsilon"]}'
    if about['epsilon'] == 'not noted':
      epsilon = 'at an ε that was not noted'
    parts.append(
      f'## `{name}`\n\n'
      f'In [{about["document"]}](../{about["document"]}), '
      f'measured on {about["date"]} {epsilon}, on '
      f'{about["cores"]} CPU cores, with {with_versions}:\n\n'
      f'```bash\n{about["command"]}\n```\n\n{shown_text}\n'
    )
  return '\n'.join(parts)


def save(recorded: Mapping[str, Mapping[str, Any]]) -> None:
  """Writes the record and its page."""
  ordered = {name: recorded[name] for name in FIGURES if name in recorded}
  text = json.dumps(ordered, indent=2, ensure_ascii=False) + '\n'
  atomic.write_bytes(JSON, text.encode())
  atomic.write_bytes(PAGE, page(ordered).encode())


_HELP = (__doc__ or '').replace('  python', '\b\n  python', 1)


@click.command(help=_HELP)
@click.argument('names', nargs=-1, metavar='[FIGURE]…')
@click.option(
  '--from',
  'source',
  type=click.Path(exists=True, file_okay=False, path_type=pathlib.Path),
  help='Read this folder instead of running the command.',
)
@click.option('--date', help='Of that folder, as 2026-11-22; today by default.')
def main(
  names: tuple[str, ...], source: pathlib.Path | None, date: str | None
) -> None:
  """Remakes figures."""
  recorded = record()
  unknown = sorted(set(names) - set(FIGURES))
  if unknown or (source is not None and len(names) != 1):
    raise click.UsageError(
      f'give names of {", ".join(FIGURES)}; with --from, give one'
    )
  if not names:
    for name, figure in FIGURES.items():
      last = recorded.get(name, {}).get('date', 'not recorded')
      click.echo(f'{name:15} {figure.costs:12} {last:13} {figure.document}')
  today = datetime.datetime.now(datetime.UTC).date().isoformat()
  for name in names:
    figure = FIGURES[name]
    # Found before the command is run, which may take long.
    shown(figure, (REPOSITORY / figure.document).read_text())
    with tempfile.TemporaryDirectory() as temporary:
      folder = source or pathlib.Path(temporary)
      if source is None:
        run(figure, folder)
      recorded[name] = entry(figure, folder, date or today)
    put(figure, recorded[name]['texts'])
    save(recorded)
    match = shown(figure, (REPOSITORY / figure.document).read_text())
    click.echo(f'{figure.document}: {" ".join(match.group().split())}')


if __name__ == '__main__':
  main()
