r"""Launches a main of T5X through XManager: on Vertex AI, or on this machine.

  python -m dst_t5x.launch.xm_launch --run_mode=vertex --accelerator=tpu_v3=8 \
    --main=train --name=numbers -- --gin_file=models/byte_tiny.gin … \
    --gin.MODEL_DIR="'gs://bucket/run'" --gin.EPSILON=0.01

After `--` come the flags that go to T5X anywhere. `xmanager launch
launch/xm_launch.py -- …` does the same.

`vertex` makes an image of T5X and this checkout, with Docker or Cloud Build,
and a job of one host: XManager asks Vertex for a TPU v2 or v3, or for GPUs. For
a slice of several hosts there is `cloud_tpu.py`. `local` runs the packages of
--python as they are, without Docker.
"""

import importlib
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import app, flags

from dst_t5x.commands import cli
from dst_t5x.launch import local_commands
from dst_t5x.launch.t5x_commit import T5X_COMMIT
from dst_t5x.recipes import gin_path

try:
  # Here, because they define flags: --xm_….
  xm: Any = importlib.import_module('xmanager.xm')
  xm_local: Any = importlib.import_module('xmanager.xm_local')
except ImportError:  # Needed neither to look at a plan nor to test one.
  xm = xm_local = None

_MODE = flags.DEFINE_enum(
  'run_mode', 'local', ['local', 'vertex'], 'On this machine or on Vertex AI.'
)
_MAIN = flags.DEFINE_enum(
  'main', 'train', local_commands.MAINS, 'Which main of T5X.'
)
_NAME = flags.DEFINE_string('name', 'dst_t5x', "The experiment's name.")
_ACCELERATOR = flags.DEFINE_string(
  'accelerator', 'tpu_v3=8', 'On Vertex AI, as NAME=COUNT: tpu_v2=8, a100=4.'
)
_PYTHON = flags.DEFINE_string(
  'python', sys.executable, 'With local: the Python that has T5X.'
)
_DRY_RUN = flags.DEFINE_boolean('dry_run', False, 'Print it, launch nothing.')


class Image(NamedTuple):
  """What `xm.PythonContainer` is made of.

  Attributes:
    path: of the checkout.
    base_image: that it begins with.
    docker_instructions: that install T5X and the checkout.
    commands: run when it starts, with the job's arguments at the end.
  """

  path: str
  base_image: str
  docker_instructions: list[str]
  commands: list[str]


def accelerator(text: str) -> dict[str, int]:
  """Returns the resources that XManager is asked for.

  Args:
    text: NAME=COUNT; empty for none.

  Returns:
    Arguments of `xm.JobRequirements`.

  Raises:
    ValueError: if it is neither.

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


def image(
  main: str, checkout: pathlib.Path, accelerators: Sequence[str]
) -> Image:
  """Returns the image of T5X and this package.

  Args:
    main: 'train', 'eval' or 'infer'.
    checkout: of this package, with its pyproject.toml.
    accelerators: names, such as 'tpu_v3', for JAX's own packages.

  Returns:
    What it is made of.

  Raises:
    ValueError: if there is no checkout.
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
      f'git checkout {T5X_COMMIT}',
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


def arguments(main: str, given: Sequence[str]) -> list[str]:
  """Returns what follows the Python of this machine: the stock main."""
  folders = gin_path.search_paths()
  [line] = local_commands.commands(
    main, given, processes=1, port=0, search_paths=folders
  )
  return line[1:]


def show(given: Sequence[str], made: Image | None) -> None:
  """Prints what would be launched."""
  if made is None:
    print(shlex.join([_PYTHON.value, *given]))
  else:
    print(f'on {_ACCELERATOR.value}:', f'FROM {made.base_image}', sep='\n')
    print(*made.docker_instructions, *made.commands, sep='\n')
    print(f'with {shlex.join(given)}')


def launch(experiment: Any, given: Sequence[str], made: Image | None) -> None:
  """Packages T5X and adds the job to an experiment of XManager's."""
  if made is None:
    executor, spec = xm_local.Local(), xm.Binary(path=_PYTHON.value)
  else:
    needs = xm.JobRequirements(**accelerator(_ACCELERATOR.value))
    executor = xm_local.Vertex(requirements=needs)
    spec = xm.PythonContainer(
      path=made.path,
      base_image=made.base_image,
      docker_instructions=made.docker_instructions,
      entrypoint=xm.CommandList(made.commands),
    )
  [executable] = experiment.package([xm.Packageable(spec, executor.Spec())])
  experiment.add(xm.Job(executable, executor, args=list(given)))


def main(argv: Sequence[str]) -> None:
  """Launches, or says what would be launched."""
  given, made = argv[1:], None
  try:
    local_commands.check_flags(given)
    if _MODE.value == 'local':
      given = arguments(_MAIN.value, given)
    else:
      names = list(accelerator(_ACCELERATOR.value))
      made = image(_MAIN.value, gin_path.root().parent, names)
    if _DRY_RUN.value:
      return show(given, made)
    if xm is None:
      raise ValueError("XManager is missing: pip install 'dst_t5x[launch]'")
    with xm_local.create_experiment(_NAME.value) as experiment:
      launch(experiment, given, made)
  except (ValueError, OSError) as error:
    print(f'xm_launch: {cli.sentence(error)}', file=sys.stderr)
    sys.exit(2)


if __name__ == '__main__':
  app.run(main)
