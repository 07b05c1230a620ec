"""What is sent to workers: this package with its pinned versions, the recipe.

Each is one tar file, which one `scp` brings. Sending it twice does no harm.
"""

import io
import pathlib
import shutil
import subprocess
import tarfile
from collections.abc import Sequence

from dst_t5x.arrays import atomic
from dst_t5x.recipes import gin_path, worker_flags

from .state_file import Run

WORKER = pathlib.Path(__file__).resolve().parent / 'worker'
_CONSTRAINTS = pathlib.Path('.ci', 'constraints.txt')


def choose(package: str | None, constraints: str | None) -> dict[str, str]:
  """Chooses what workers install: a checkout or a wheel, and which versions.

  Args:
    package: path of a checkout or a wheel; None takes the checkout that this
      program runs from.
    constraints: path of a file of pinned versions; None takes the checkout's.

  Returns:
    Absolute paths as 'package' and 'constraints'.

  Raises:
    ValueError: if there is no checkout, or no file of pinned versions.
  """
  checkout = gin_path.root().parent
  chosen = pathlib.Path(package or checkout).resolve()
  if chosen.suffix != '.whl' and not (chosen / 'pyproject.toml').is_file():
    if package is None:
      raise ValueError(
        'dst_t5x is installed from a wheel here and is on no registry: name '
        'what workers are to install with --package PATH_OF_WHEEL_OR_CHECKOUT'
      )
    raise ValueError(f'--package {package} is neither a wheel nor a checkout')
  if not chosen.exists():
    raise ValueError(f'--package {package} does not exist')
  pins = pathlib.Path(constraints) if constraints else None
  if pins is None:
    candidates = [chosen / _CONSTRAINTS, checkout / _CONSTRAINTS]
    pins = next((each for each in candidates if each.is_file()), None)
  if pins is None or not pins.is_file():
    raise ValueError(
      'there is no file of pinned versions'
      + (f' {constraints}' if constraints else '')
      + ': name one with --constraints, such as .ci/constraints.txt of the '
      'checkout that the wheel was built from'
    )
  return {'package': str(chosen), 'constraints': str(pins.resolve())}


def write_bundle(run: Run) -> None:
  """Writes the tar file with the package and the scripts of the workers.

  Args:
    run: whose `package` says what to send.

  Raises:
    ValueError: if the files of a checkout cannot be listed.
    OSError: if a file cannot be read or written.
  """
  package = pathlib.Path(run.package['package'])
  pairs = [
    (script, f'worker/{script.name}') for script in sorted(WORKER.glob('*.sh'))
  ]
  pairs.append(
    (pathlib.Path(run.package['constraints']), 'package/constraints.txt')
  )
  if package.is_dir():
    pairs += [
      (package / name, f'package/checkout/{name}') for name in _tracked(package)
    ]
  else:
    pairs.append((package, f'package/{package.name}'))
  _write(run, 'bundle.tar', pairs)


def write_recipe(run: Run) -> None:
  """Writes the tar file with the files that only this machine has.

  Args:
    run: whose `flags` name gin files, and whose `files` are sent as well.

  Raises:
    ValueError: if a file lies outside the working directory.
    OSError: if a file cannot be read or written.
  """
  pairs = {
    file.name: file.path for file in worker_flags.files_to_copy(run.flags)
  }
  for name in run.files:
    worker_flags.check_below(name)
    pairs[name] = pathlib.Path(name)
  _write(run, 'recipe.tar', [(path, name) for name, path in pairs.items()])


def write_lifetime(run: Run) -> None:
  """Writes the script that deletes the TPU at the end of its lifetime."""
  run.folder.mkdir(exist_ok=True)
  shutil.copyfile(WORKER / 'lifetime.sh', run.folder / 'lifetime.sh')


def _tracked(checkout: pathlib.Path) -> list[str]:
  """Returns the files that git tracks; all but caches if there is no git."""
  if not (checkout / '.git').exists():
    return sorted(
      str(path.relative_to(checkout))
      for path in checkout.rglob('*')
      if path.is_file() and '__pycache__' not in path.parts
    )
  listed = subprocess.run(
    ['git', '-C', str(checkout), 'ls-files', '-z'],
    capture_output=True,
    text=True,
    check=False,
  )
  if listed.returncode:
    raise ValueError(
      f'git cannot list the files of {checkout}: {listed.stderr.strip()}'
    )
  names = listed.stdout.split('\0')
  # git also lists a file that was deleted without a commit.
  return [name for name in names if name and (checkout / name).exists()]


def _write(
  run: Run, name: str, pairs: Sequence[tuple[pathlib.Path, str]]
) -> None:
  run.folder.mkdir(exist_ok=True)
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w') as tar:
    for source, target in pairs:
      tar.add(source, target)
  atomic.write_bytes(run.folder / name, buffer.getvalue())
