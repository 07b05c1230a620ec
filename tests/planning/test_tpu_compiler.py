"""Where libtpu is looked for, and which process gets to see it."""

import fnmatch
import importlib.util
import os
import pathlib
import re

import pytest

from dst_t5x.planning import tpu_compiler, virtual_slice
from dst_t5x.planning.tpu_compiler import TPUCompiler


def install(folder, version):
  """What `pip install --target` leaves, as far as it is looked at."""
  package = folder / 'libtpu'
  package.mkdir(parents=True)
  (package / '__init__.py').touch()
  (package / 'libtpu.so').touch()
  about = folder / f'libtpu-{version}.dist-info'
  about.mkdir()
  (about / 'METADATA').write_text(
    f'Metadata-Version: 2.1\nName: libtpu\nVersion: {version}\n'
  )
  return str(folder)


def test_the_option_wins_over_the_variable_over_the_installed(
  tmp_path, monkeypatch
):
  one, two, three = (
    install(tmp_path / name, version)
    for name, version in (('one', '1.0'), ('two', '2.0'), ('three', '3.0'))
  )
  monkeypatch.syspath_prepend(three)
  monkeypatch.setenv(tpu_compiler.VARIABLE, two)
  assert tpu_compiler.find(one) == TPUCompiler(one, '1.0')
  assert tpu_compiler.find() == TPUCompiler(two, '2.0')
  monkeypatch.delenv(tpu_compiler.VARIABLE)
  assert tpu_compiler.find() == TPUCompiler(None, '3.0')


def test_without_any_it_says_how_to_install_one(monkeypatch):
  monkeypatch.delenv(tpu_compiler.VARIABLE, raising=False)
  find_spec = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name: None if name == 'libtpu' else find_spec(name),
  )
  assert tpu_compiler.find() is None
  why = virtual_slice.missing(None)
  assert why is not None
  # The version that this JAX asks for, in a folder of its own.
  assert re.search(
    r"pip install --no-deps --target FOLDER 'libtpu==0\.0\.\d+\.\*'", why
  )
  assert '--libtpu FOLDER or DST_T5X_LIBTPU=FOLDER' in why


@pytest.mark.parametrize('left_out', ['libtpu.so', 'METADATA'])
def test_a_folder_that_is_named_must_hold_one(tmp_path, left_out):
  install(tmp_path, '1.0')
  (path,) = tmp_path.rglob(left_out)
  path.unlink()
  with pytest.raises(ValueError, match='which holds no libtpu: pip install'):
    tpu_compiler.find(tmp_path)


def test_only_the_process_that_compiles_sees_the_folder(tmp_path, monkeypatch):
  monkeypatch.setenv('TPU_LIBRARY_PATH', '/another/libtpu.so')
  folder = install(tmp_path, '1.0')
  before = dict(os.environ)
  variables = virtual_slice.environment(TPUCompiler(folder, '1.0'))
  assert variables['PYTHONPATH'].split(os.pathsep)[0] == folder
  assert 'TPU_LIBRARY_PATH' not in variables
  assert dict(os.environ) == before


def test_the_pinned_version_is_one_that_jax_asks_for():
  constraints = pathlib.Path(__file__).parents[2] / '.ci' / 'constraints.txt'
  (pinned,) = re.findall(r'^libtpu==\S+$', constraints.read_text(), re.M)
  (wanted,) = re.findall("'(libtpu==.*?)'", tpu_compiler.install())
  assert fnmatch.fnmatch(pinned, wanted)
