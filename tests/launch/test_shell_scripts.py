"""Every shell script of the repository passes shellcheck."""

import pathlib
import shutil
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# Beside the interpreter, where the extra `test` puts it, or on the path.
_HERE = shutil.which('shellcheck', path=pathlib.Path(sys.executable).parent)
SHELLCHECK = _HERE or shutil.which('shellcheck')


def _scripts():
  """Returns files that git knows, by their ending or by their first line."""
  listed = subprocess.run(
    ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
    check=False,
  )
  if listed.returncode:  # no checkout, such as an unpacked archive
    names = [
      str(path.relative_to(REPOSITORY))
      for path in REPOSITORY.rglob('*')
      if path.is_file()
    ]
  else:
    names = [name for name in listed.stdout.split('\0') if name]
  return sorted(
    name for name in names if _is_shell(pathlib.Path(REPOSITORY, name))
  )


def _is_shell(path):
  if path.suffix == '.sh':
    return path.is_file()
  if path.suffix or not path.is_file():
    return False
  with path.open('rb') as file:
    first = file.readline(80)
  return first.startswith(b'#!') and first.rstrip().endswith(
    (b'bash', b'/sh', b' sh')
  )


SCRIPTS = _scripts()


def test_scripts_are_found():
  assert '.ci/run' in SCRIPTS
  assert 'launch/tpu/worker/install.sh' in SCRIPTS
  assert 'launch/tpu/worker/lifetime.sh' in SCRIPTS


@pytest.mark.parametrize('name', SCRIPTS)
def test_shellcheck(name):
  assert SHELLCHECK, "shellcheck is missing: pip install -e '.[test]'"
  # SC2329 takes a function that is called by its name in a variable for one
  # that is never called.
  checked = subprocess.run(
    [
      str(SHELLCHECK),
      '--external-sources',
      '--source-path=SCRIPTDIR',
      '--exclude=SC2329',
      name,
    ],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
    check=False,
  )
  assert checked.returncode == 0, checked.stdout + checked.stderr
