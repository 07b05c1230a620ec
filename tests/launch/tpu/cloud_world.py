"""What the tests of the Cloud TPU launcher share: a world to act in."""

import contextlib
import json
import os
import pathlib
import shlex
import signal
import sys

from click.testing import CliRunner

from dst_t5x.commands import cli

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE.parents[1] / 'golden'
FLAGS = (
  '--gin_file=models/byte_tiny.gin',
  "--gin.MODEL_DIR='gs://bucket/run'",
  '--gin.EPSILON=0.01',
)
PLACE = ('--zone=us-central2-b', '--project=lab')

# What a worker finds on its path in place of the real thing.
_BIN = {
  'curl': """
    key=${@: -1}; key=${key##*/}
    [[ -e $HOME/metadata/$key ]] || exit 22
    cat "$HOME/metadata/$key"
  """,
  'git': """
    case $1 in
      clone) mkdir -p "${@: -1}/.git"; echo 0000000 >"${@: -1}/.git/commit" ;;
      -C)
        folder=$2
        case $3 in
          checkout) echo "${@: -1}" >"$folder/.git/commit" ;;
          rev-parse) cat "$folder/.git/commit" ;;
        esac ;;
    esac
  """,
  'python3': """
    echo "$*" >>"$HOME/python.log"
    case "$*" in
      '-m uv venv '*)
        mkdir -p "${@: -1}/bin"
        cp "$WORLD/venv_python" "${@: -1}/bin/python"
        cp "$WORLD/venv_dst_t5x" "${@: -1}/bin/dst-t5x" ;;
      '-m uv pip install '*)
        if [[ ${BREAK-} == pip ]]; then
          echo 'error: No space left on device' >&2; exit 1
        fi ;;
    esac
  """,
  'gcloud': 'exec {python} -I -S -c {start} "$@"',
}
_VENV_PYTHON = """
  printf '%s\\n' "$@" >>"$HOME/venv_python.log"
  case "$*" in
    *delta_checkpoint*) echo "${@: -1}/checkpoint_20" ;;
    '-m dst_t5x.launch.t5x_main '*)
      echo "$PWD" >"$HOME/main.pwd"; printf '%s\\n' "$@" >"$HOME/main.args"
      worker=$(cat "$HOME/metadata/agent-worker-number")
      . "$WORLD/main.sh" ;;
  esac
"""
_VENV_DST_T5X = """
  case "$*" in
    gin-path) echo /gin ;;
    'delta export --overwrite '*) cp "$WORLD/delta.safetensors" "${@: -1}" ;;
  esac
"""


class World:
  """A working directory, and the cloud as the stand-in keeps it."""

  def __init__(self, folder, monkeypatch):
    self.folder = folder / 'world'
    self.here = folder / 'here'
    self.folder.mkdir()
    self.here.mkdir()
    monkeypatch.chdir(self.here)
    monkeypatch.delenv('CLOUDSDK_COMPUTE_ZONE', raising=False)
    monkeypatch.delenv('CLOUDSDK_CORE_PROJECT', raising=False)
    monkeypatch.setenv('DST_T5X_GCLOUD_WORLD', str(self.folder))
    words = {
      'python': shlex.quote(sys.executable),
      # Imported, so that it is compiled once and not for every call.
      'start': shlex.quote(
        f'import sys; sys.path.insert(0, {str(HERE)!r}); '
        'import gcloud_stand_in; gcloud_stand_in.main()'
      ),
    }
    (self.folder / 'bin').mkdir()
    for name, body in _BIN.items():
      body = body.format(**words) if name == 'gcloud' else body
      _script(self.folder / 'bin' / name, body)
    _script(self.folder / 'venv_python', _VENV_PYTHON)
    _script(self.folder / 'venv_dst_t5x', _VENV_DST_T5X)
    self.main('echo "step 1 of worker $worker"; echo "step 2"')
    self.gcloud = self.folder / 'bin' / 'gcloud'
    monkeypatch.setenv('DST_T5X_GCLOUD', str(self.gcloud))
    self.checkout = folder / 'checkout'
    (self.checkout / '.ci').mkdir(parents=True)
    (self.checkout / 'pyproject.toml').write_text('[project]\n')
    (self.checkout / '.ci' / 'constraints.txt').write_text('jax==0.10.2\n')

  def main(self, body):
    """Says what the main does on a worker, in bash."""
    (self.folder / 'main.sh').write_text(body + '\n')

  def rules(self, *rules):
    """Says what is to fail; see the stand-in."""
    (self.folder / 'rules.json').write_text(json.dumps(rules))

  def run(self, *words):
    """Runs the launcher; returns exit code, standard output and both."""
    return CliRunner().invoke(
      cli.main, ['launch', 'tpu', *map(str, words)], prog_name='dst-t5x'
    )

  def up(self, *words, accelerator='v4-8', flags=FLAGS):
    return self.run(
      'up',
      'demo',
      'train',
      f'--accelerator={accelerator}',
      *PLACE,
      f'--package={self.checkout}',
      '--poll=0.05',
      *words,
      '--',
      *flags,
    )

  def calls(self, *verbs):
    """Returns what gcloud was asked, or only some verbs of it."""
    file = self.folder / 'calls.jsonl'
    lines = file.read_text().splitlines() if file.exists() else []
    calls = [json.loads(line) for line in lines]
    return [each for each in calls if not verbs or each[3] in verbs]

  @property
  def things(self):
    """What exists: pairs of kind and name."""
    file = self.folder / 'world.json'
    if not file.exists():
      return set()
    content = json.loads(file.read_text())
    return {(kind, name) for kind in content for name in content[kind]}

  def change(self, kind, name, **fields):
    """Changes what exists, from outside."""
    file = self.folder / 'world.json'
    content = json.loads(file.read_text())
    content[kind][name].update(fields)
    file.write_text(json.dumps(content))

  def home(self, worker, name='demo'):
    return self.folder / 'workers' / name / str(worker)

  @property
  def state(self):
    """The state file's content, or None."""
    file = self.here / 'demo.tpu.json'
    return json.loads(file.read_text()) if file.exists() else None

  def end(self):
    """Ends what still runs on workers."""
    for file in self.folder.glob('workers/*/*/dst_t5x_run/run/pid'):
      with contextlib.suppress(ProcessLookupError):
        os.killpg(int(file.read_text()), signal.SIGKILL)


def _script(path, body):
  path.write_text(f'#!/usr/bin/env bash\n{body}\n')
  path.chmod(0o755)
