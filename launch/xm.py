r"""`dst-t5x launch xm`: T5X through XManager, on Vertex AI or on this machine.

  dst-t5x launch xm train --run-mode=vertex --accelerator=tpu_v3=8 \
    --name=numbers -- --gin_file=models/byte_tiny.gin … \
    --gin.MODEL_DIR="'gs://bucket/run'" --gin.EPSILON=0.01

T5X's own flags come after `--`. XManager's program does the same; there the
options are flags of absl, which are spelled with underscores:

  xmanager launch launch/xm.py -- --main=train --run_mode=vertex … -- …

`vertex` makes an image of T5X and this checkout, with Docker or Cloud Build,
and a job of one host: XManager asks Vertex AI for a TPU v2 or v3, or for GPUs.
For a slice of several hosts there is `dst-t5x launch tpu`. `local` starts the
Python that --python names, with the packages that it has, without Docker.
"""

import importlib
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import click
from absl import app
from absl import flags as absl_flags

from dst_t5x.commands import cli

# Absolute: XManager's program imports this file by itself, as no package's.
from dst_t5x.launch import launch_options, stock_mains
from dst_t5x.recipes import gin_path

try:
  # Imported here, because these modules define XManager's own flags, --xm_….
  xm_api: Any = importlib.import_module('xmanager.xm')
  xm_local: Any = importlib.import_module('xmanager.xm_local')
except ImportError:  # A dry run can do without.
  xm_api = xm_local = None


class _Option(NamedTuple):
  """An option of ours, which is a flag of absl, too."""

  name: str
  default: str
  help: str
  choices: Sequence[str] | None = None


_OPTIONS = (
  _Option('run_mode', 'local', 'Where to run.', ['local', 'vertex']),
  _Option('name', 'dst_t5x', 'Name of the experiment.'),
  _Option(
    'accelerator', 'tpu_v3=8', 'On Vertex AI, as NAME=COUNT: tpu_v2=8, a100=4.'
  ),
  _Option('python', sys.executable, 'With local: the Python that has T5X.'),
)
_MAIN = _Option('main', 'train', 'Which main of T5X.', stock_mains.MAINS)

for _option in (*_OPTIONS, _MAIN):
  if _option.choices:
    absl_flags.DEFINE_enum(*_option[:2], _option.choices, _option.help)
  else:
    absl_flags.DEFINE_string(*_option[:3])
absl_flags.DEFINE_boolean('dry_run', False, 'Print it, launch nothing.')


class Image(NamedTuple):
  """What `xm.PythonContainer` is made of.

  Attributes:
    path: folder of the checkout.
    base_image: image on which this one is built.
    docker_instructions: commands of a Dockerfile that install T5X and the
      checkout.
    commands: shell commands that the container runs; the job's arguments are
      put at the end.
  """

  path: str
  base_image: str
  docker_instructions: list[str]
  commands: list[str]


def accelerator(text: str) -> dict[str, int]:
  """Returns the resources that XManager is asked for.

  Args:
    text: NAME=COUNT, or empty for no accelerator.

  Returns:
    Arguments of `xm.JobRequirements`.

  Raises:
    ValueError: if the text is neither.

  Example:
    >>> accelerator('tpu_v3=8')
    {'tpu_v3': 8}
  """
  name, _, count = text.partition('=')
  if not text:
    return {}
  if not name or not count.isdecimal() or int(count) == 0:
    raise ValueError(f"--accelerator={text} is not as 'tpu_v3=8' or 'a100=4'")
  return {name: int(count)}


def image_of(
  main: str, checkout: pathlib.Path, accelerators: Sequence[str]
) -> Image:
  """Returns the image of T5X and this package.

  Args:
    main: 'train', 'eval' or 'infer'.
    checkout: folder of this package's checkout, with its pyproject.toml.
    accelerators: names such as 'tpu_v3'; JAX's packages for them are installed.

  Returns:
    What the image is made of.

  Raises:
    ValueError: if the folder is no checkout.
  """
  if not (checkout / 'pyproject.toml').is_file():
    raise ValueError(
      f'{checkout} is no checkout of dst_t5x, of which the image is made; '
      'clone it, and install it with pip install -e'
    )
  extras = ['t5x']
  for name in accelerators:
    extras.append('tpu' if name.lower().startswith('tpu') else 'cuda')
  google = 'git clone https://github.com/google'
  return Image(
    path=str(checkout),
    base_image='python:3.11',
    docker_instructions=[
      f'RUN {google}-research/t5x /src/t5x && cd /src/t5x && '
      f'git checkout {stock_mains.T5X_COMMIT}',
      f'RUN {google}/airio /src/airio',
      f'RUN {google}-research/jestimator /src/jestimator',
      'ENV PYTHONPATH=/src/t5x:/src/airio:/src/jestimator',
      f'COPY {checkout.name}/ /src/dst_t5x',
      f"RUN pip install '/src/dst_t5x[{','.join(extras)}]'",
    ],
    commands=[
      f'python -m t5x.{main} --gin_search_paths="$(dst-t5x gin-path)" "$@"'
    ],
  )


def show(
  arguments: Sequence[str], image: Image | None, given: absl_flags.FlagValues
) -> None:
  """Prints what would be launched.

  Args:
    arguments: of the job.
    image: what the job runs in; None for this machine's Python.
    given: the options, as absl has read them.
  """
  if image is None:
    print(shlex.join([given.python, *arguments]))
  else:
    print(f'on {given.accelerator}:', f'FROM {image.base_image}', sep='\n')
    print(*image.docker_instructions, *image.commands, sep='\n')
    print(f'with {shlex.join(arguments)}')


def add_job(
  experiment: Any,
  arguments: Sequence[str],
  image: Image | None,
  given: absl_flags.FlagValues,
) -> None:
  """Packages T5X and adds the job to an experiment.

  Args:
    experiment: from XManager.
    arguments: of the job.
    image: what the job runs in; None for this machine's Python.
    given: the options, as absl has read them.
  """
  if image is None:
    executor, spec = xm_local.Local(), xm_api.Binary(path=given.python)
  else:
    needs = xm_api.JobRequirements(**accelerator(given.accelerator))
    executor = xm_local.Vertex(requirements=needs)
    spec = xm_api.PythonContainer(
      path=image.path,
      base_image=image.base_image,
      docker_instructions=image.docker_instructions,
      entrypoint=xm_api.CommandList(image.commands),
    )
  [executable] = experiment.package([xm_api.Packageable(spec, executor.Spec())])
  experiment.add(xm_api.Job(executable, executor, args=list(arguments)))


def main(argv: Sequence[str]) -> None:
  """Launches the job, or prints it; `absl.app.run` calls this.

  Args:
    argv: the program's name and T5X's flags; absl has read all others.
  """
  given, arguments, image = absl_flags.FLAGS, list(argv[1:]), None
  try:
    stock_mains.check_flags(arguments)
    if given.run_mode == 'local':
      line = stock_mains.command_line(
        given.main, arguments, search_paths=gin_path.search_paths()
      )
      arguments = ['-m', *line]
    else:
      names = list(accelerator(given.accelerator))
      image = image_of(given.main, gin_path.root().parent, names)
    if given.dry_run:
      return show(arguments, image, given)
    if xm_api is None:
      raise ValueError("XManager is missing: pip install 'dst_t5x[launch]'")
    with xm_local.create_experiment(given.name) as experiment:
      add_job(experiment, arguments, image, given)
  except (ValueError, OSError) as error:
    cli.UserError(cli.sentence(error)).show()
    sys.exit(cli.UserError.exit_code)


@click.command(
  cls=launch_options.T5XCommand,
  context_settings={'ignore_unknown_options': True},
)
@launch_options.main_argument
@click.argument(
  'xm_flags', nargs=-1, type=click.UNPROCESSED, metavar='[XM_FLAGS]...'
)
@launch_options.dry_run
def xm(
  xm_flags: tuple[str, ...], flags: tuple[str, ...], **options: str | bool
) -> None:
  """Run a main of T5X through XManager, here or on Vertex AI.

  T5X's flags come after --. XM_FLAGS are XManager's own, such as
  --xm_db_yaml_config_path=FILE.
  """
  for word in xm_flags:
    option = word.partition('=')[0]
    name = option.lstrip('-')
    if not {name, name.removeprefix('no')} & set(absl_flags.FLAGS):
      raise click.UsageError(
        f"no option {option} here; T5X's own flags come after --"
      )
  words = [f'--{name}={value}' for name, value in options.items()]
  app.run(main, ['dst-t5x launch xm', *words, *xm_flags, '--', *flags])


for _option in _OPTIONS:
  _spellings = dict.fromkeys((_option.name.replace('_', '-'), _option.name))
  xm.params.append(
    click.Option(
      [_option.name, *(f'--{spelling}' for spelling in _spellings)],
      type=click.Choice(_option.choices) if _option.choices else str,
      default=_option.default,
      show_default=True,
      help=_option.help,
    )
  )

if __name__ == '__main__':
  xm(prog_name='dst-t5x launch xm')
