"""What goes to the workers: our package, its pinned versions, the recipe.

Each is one tar file, so that one `scp` brings it, and bringing it twice is the
same as once.
"""

import io
import pathlib
import shutil
import subprocess
import tarfile
from collections.abc import Sequence

import dst_t5x
from dst_t5x.arrays import atomic
from dst_t5x.launch import tpu_flags, tpu_state

WORKER = pathlib.Path(__file__).resolve().parent / 'worker'
_CONSTRAINTS = pathlib.Path('.ci', 'constraints.txt')


def choose(package: str | None, constraints: str | None) -> dict[str, str]:
  """Says what to install: a checkout or a wheel, and with which versions.

  Args:
    package: path of a checkout or a wheel; None takes the checkout that this
      program runs from.
    constraints: path of a file of pinned versions; None takes the checkout's.

  Returns:
    Absolute paths as 'package' and 'constraints'.

  Raises:
    ValueError: if there is no checkout, or no pinned versions.
  """
  checkout = pathlib.Path(dst_t5x.__file__).resolve().parents[1]
  found = pathlib.Path(package or checkout).resolve()
  if found.suffix != '.whl' and not (found / 'pyproject.toml').is_file():
    if package is None:
      raise ValueError(
        'dst_t5x is installed from a wheel here and is on no registry: name '
        'what workers are to install with --package PATH_OF_WHEEL_OR_CHECKOUT'
      )
    raise ValueError(f'--package {package} is neither a wheel nor a checkout')
  if not found.exists():
    raise ValueError(f'--package {package} does not exist')
  pins = pathlib.Path(constraints) if constraints else None
  if pins is None:
    candidates = [found / _CONSTRAINTS, checkout / _CONSTRAINTS]
    pins = next((each for each in candidates if each.is_file()), None)
  if pins is None or not pins.is_file():
    raise ValueError(
      'there is no file of pinned versions'
      + (f' {constraints}' if constraints else '')
      + ': name one with --constraints, such as .ci/constraints.txt of the '
      'checkout that the wheel was built from'
    )
  return {'package': str(found), 'constraints': str(pins.resolve())}


def write_bundle(run: tpu_state.Run) -> int:
  """Writes the tar file with the package and the workers' scripts.

  Args:
    run: `package` says what to send.

  Returns:
    Size of the file (bytes).

  Raises:
    ValueError: if a checkout's files cannot be listed.
    OSError: if a file cannot be read or written.
  """
  package = pathlib.Path(run.package['package'])
  pairs = [(script, f'worker/{script.name}') for script in _scripts()]
  pairs.append(
    (pathlib.Path(run.package['constraints']), 'package/constraints.txt')
  )
  if package.is_dir():
    pairs += [
      (package / name, f'package/checkout/{name}') for name in _tracked(package)
    ]
  else:
    pairs.append((package, f'package/{package.name}'))
  return _write(run, 'bundle.tar', pairs)


def write_recipe(run: tpu_state.Run, flags: Sequence[str]) -> int:
  """Writes the tar file with the gin files that only this machine has.

  Args:
    run: `files` names further files.
    flags: T5X's, which name gin files.

  Returns:
    Size of the file (bytes).

  Raises:
    ValueError: if a file lies outside the working directory.
    OSError: if a file cannot be read or written.
  """
  names = [*tpu_flags.local_files(flags), *run.files]
  for name in names:
    tpu_flags.check_below(name)
  pairs = [(pathlib.Path(name), name) for name in dict.fromkeys(names)]
  return _write(run, 'recipe.tar', pairs)


def prepare(run: tpu_state.Run) -> None:
  """Makes the launcher's folder, with the script that ends the TPU's life.

  Args:
    run: whose folder.

  Raises:
    OSError: if it cannot be written.
  """
  run.folder.mkdir(exist_ok=True)
  shutil.copyfile(WORKER / 'lifetime.sh', run.folder / 'lifetime.sh')


def _scripts() -> list[pathlib.Path]:
  return sorted(WORKER.glob('*.sh'))


def _tracked(checkout: pathlib.Path) -> list[str]:
  """Returns the files that git knows, or of a plain copy all but caches."""
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
  # A file deleted but not yet committed is listed, too.
  return [name for name in names if name and (checkout / name).exists()]


def _write(
  run: tpu_state.Run, name: str, pairs: Sequence[tuple[pathlib.Path, str]]
) -> int:
  run.folder.mkdir(exist_ok=True)
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w') as tar:
    for source, target in pairs:
      tar.add(source, target)
  return atomic.write_bytes(run.folder / name, buffer.getvalue())
