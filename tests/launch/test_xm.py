"""The launch through XManager: what is asked for, and real XManager if here."""

import importlib.util
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from dst_t5x.launch import xm
from dst_t5x.recipes import gin_path

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
needs_xmanager = pytest.mark.skipif(
  importlib.util.find_spec('xmanager') is None,
  reason='not installed: xmanager (the extra `launch`)',
)


def test_accelerators():
  assert xm.accelerator('tpu_v3=8') == {'tpu_v3': 8}
  assert xm.accelerator('') == {}


@pytest.mark.parametrize('text', ['v3-8', 'tpu_v3=', '=8', 'a100=0', 'a100=-1'])
def test_wrong_accelerators(text):
  with pytest.raises(ValueError, match=f'--accelerator={text} is not as'):
    xm.accelerator(text)


@pytest.fixture
def checkout(tmp_path):
  folder = tmp_path / 'a checkout'
  folder.mkdir()
  (folder / 'pyproject.toml').touch()
  return folder


@pytest.mark.parametrize(
  ('accelerators', 'extras'),
  [([], 't5x'), (['tpu_v3'], 't5x,tpu'), (['a100'], 't5x,cuda')],
)
def test_image(checkout, accelerators, extras):
  made = xm.image_of('eval', checkout, accelerators)
  assert made.path == str(checkout)
  assert f"RUN pip install '/src/dst_t5x[{extras}]'" in made.docker_instructions
  (line,) = made.commands
  assert line.startswith('python -m t5x.eval ')
  assert line.endswith('"$@"')


def test_image_has_what_the_readme_installs():
  """The commit, the clones and the extras that exist."""
  readme = (REPOSITORY / 'gin' / 'README.md').read_text()
  made = xm.image_of('train', REPOSITORY, ['tpu_v3'])
  said = '\n'.join(made.docker_instructions)
  clones = re.findall(r'git clone (https://\S+)', readme)
  assert len(clones) >= 3
  for clone in clones:
    if clone.endswith(('/t5x', '/airio', '/jestimator')):
      assert f'git clone {clone} ' in said
  (commit,) = re.findall(r'git -C t5x checkout (\w+)', readme)
  assert f'git checkout {commit}' in said
  (extras,) = re.findall(r'\[([\w,]+)\]', said)
  project = (REPOSITORY / 'pyproject.toml').read_text()
  for extra in extras.split(','):
    assert re.search(rf'^{extra} = \[', project, re.M)


def test_image_needs_a_checkout(tmp_path):
  with pytest.raises(ValueError, match='is no checkout of dst_t5x'):
    xm.image_of('train', tmp_path, [])


def run(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'dst_t5x.commands.cli', 'launch', 'xm', *arguments],
    capture_output=True,
    text=True,
    check=False,
  )


def test_dry_run_here():
  done = run('infer', '--dry-run', '--', '--gin_file=a b', '--x')
  assert done.returncode == 0, done.stderr
  search = ','.join(str(path) for path in gin_path.search_paths())
  assert shlex.split(done.stdout) == [
    *(sys.executable, '-m', 't5x.infer', f'--gin_search_paths={search}'),
    *('--gin_file=a b', '--x'),
  ]


@pytest.mark.parametrize('spelling', ['--run-mode=vertex', '--run_mode=vertex'])
def test_dry_run_on_vertex(spelling):
  done = run('train', '--dry-run', spelling, '--', '--gin_file=a b')
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert lines[:2] == ['on tpu_v3=8:', 'FROM python:3.11']
  assert lines[-1] == "with '--gin_file=a b'"


def test_dry_run_by_xmanagers_own_program():
  """It imports the file by itself and reads the options as flags of absl."""
  code = """
import sys
from absl import app
sys.path.insert(0, sys.argv[1])
import xm
app.run(xm.main, ['xm.py', *sys.argv[2:]])
"""
  done = subprocess.run(
    [sys.executable, '-c', code, str(REPOSITORY / 'launch')]
    + ['--dry_run', '--main=infer', '--', '--gin_file=a b'],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert shlex.split(done.stdout)[2:] == [
    't5x.infer',
    f'--gin_search_paths={",".join(map(str, gin_path.search_paths()))}',
    '--gin_file=a b',
  ]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['train'], 'flags are missing: give them after --'),
    (
      ['train', '--run-mode=vertex', '--accelerator=v3-8', '--', '-x'],
      'v3-8 is not as',
    ),
  ],
)
def test_what_is_wrong_is_said(arguments, message):
  done = run(*arguments)
  assert done.returncode == 2
  assert message in done.stderr
  assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
  'word', ['--gin_file=a', '--acelerator=a100=1', 'word']
)
def test_an_unknown_option_is_refused(word):
  done = run('train', word, '--', '-x')
  assert done.returncode == 2
  assert "T5X's own flags come after --" in done.stderr


def test_without_xmanager_it_is_said(tmp_path):
  (tmp_path / 'xmanager.py').write_text('raise ImportError')
  done = subprocess.run(
    [sys.executable, '-m', 'dst_t5x.launch.xm', 'train', '--', '-x'],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2
  assert done.stderr == (
    "dst-t5x: XManager is missing: pip install 'dst_t5x[launch]'\n"
  )


@needs_xmanager
def test_a_job_on_this_machine(tmp_path):
  """Through XManager's own experiment, with a stand-in for T5X's main."""
  (tmp_path / 't5x').mkdir()
  (tmp_path / 't5x' / '__init__.py').touch()
  (tmp_path / 't5x' / 'train.py').write_text(
    "import sys; open('said', 'w').write(repr(sys.argv[2:]))"
  )
  done = subprocess.run(
    [sys.executable, '-m', 'dst_t5x.launch.xm', 'train']
    + ['--', "--gin.X='a b'"],
    cwd=tmp_path,
    env={**os.environ, 'HOME': str(tmp_path)},  # Its database goes there.
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'said').read_text() == repr(["--gin.X='a b'"])


# XManager's own packaging and job for Vertex AI; only Docker, Cloud Build and
# Vertex AI themselves are replaced, by what notes the calls.
VERTEX = """
import os, pathlib, shutil, sys
from unittest import mock
from absl import app
from google.cloud import aiplatform
from xmanager.cloud import auth, cloud_build, docker_lib
from dst_t5x.launch import xm

out = pathlib.Path(sys.argv.pop(1))
class Build:
  def __init__(self, *_, **__): pass
  def build_docker_image(self, name, path, upload):
    shutil.copy(pathlib.Path(path) / 'Dockerfile', out / 'Dockerfile')
    shutil.copy(pathlib.Path(path) / 'entrypoint.sh', out / 'entrypoint.sh')
    (out / 'staged').write_text(' '.join(os.listdir(path)))
job = mock.Mock()
job.return_value.resource_name = 'projects/p/jobs/1'
job.return_value._block_until_complete = lambda: None
job.get.return_value = job.return_value
with (
  mock.patch.object(auth, 'get_project_name', lambda: 'project'),
  mock.patch.object(auth, 'get_bucket', lambda: 'bucket'),
  mock.patch.object(auth, 'get_service_account', lambda: 'account'),
  mock.patch.object(auth, 'get_creds', lambda *a: None),
  mock.patch.object(docker_lib, 'is_docker_installed', lambda: False),
  mock.patch.object(cloud_build, 'Client', Build),
  mock.patch.object(aiplatform, 'init', lambda **_: None),
  mock.patch.object(aiplatform, 'CustomJob', job),
):
  try:
    app.run(xm.main)
  except SystemExit as ended:
    assert not ended.code
pool = job.call_args.kwargs['worker_pool_specs'][0]
(out / 'args').write_text(repr(list(pool.container_spec.args)))
(out / 'machine').write_text(
  f'{pool.machine_spec.machine_type} {pool.machine_spec.accelerator_type.name}'
  f' {pool.machine_spec.accelerator_count} {pool.replica_count}')
"""


@needs_xmanager
def test_a_job_on_vertex(tmp_path):
  done = subprocess.run(
    [sys.executable, '-c', VERTEX, str(tmp_path), '--run_mode=vertex']
    + ['--accelerator=tpu_v3=8', '--', "--gin.MODEL_DIR='gs://b/r'"],
    env={**os.environ, 'HOME': str(tmp_path)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert (tmp_path / 'args').read_text() == repr(["--gin.MODEL_DIR='gs://b/r'"])
  assert (tmp_path / 'machine').read_text() == 'cloud-tpu TPU_V3 8 1'
  dockerfile = (tmp_path / 'Dockerfile').read_text()
  made = xm.image_of('train', REPOSITORY, ['tpu_v3'])
  assert '\n'.join(made.docker_instructions) in dockerfile
  assert REPOSITORY.name in (tmp_path / 'staged').read_text().split()
  entrypoint = (tmp_path / 'entrypoint.sh').read_text()
  assert entrypoint.rstrip().endswith(made.commands[0])
