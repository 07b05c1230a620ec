"""A run of DST inside stock T5X, judged by what lies on the disk."""

import hashlib
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from t5x import checkpoints as t5x_checkpoints  # type: ignore

from tests import checks
from tests.t5x import runs
from tests.t5x.conftest import LENGTHS

FINAL = 'run/checkpoint_1800'


def manifest(arrays):
  return json.loads(arrays['state/manifest'].tobytes())


def t5x_parameters(checkpoint: pathlib.Path) -> dict[str, np.ndarray]:
  """Parameters of a legacy checkpoint as T5X itself reads them."""
  state = t5x_checkpoints.load_t5x_checkpoint(str(checkpoint))
  return checks.flat(state['target'])


def silo(path: str) -> str:
  """The paper's default silo, module and layer, written anew."""
  match = re.match(r'(.*layers_\d+/[^/]+)/', path)
  return match[1] if match else path.rpartition('/')[0]


def dst_t5x(*arguments: str) -> str:
  line = [sys.executable, '-m', 'dst_t5x.commands.cli', *arguments]
  done = subprocess.run(line, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.fixture(scope='module')
def merged(once, tuned) -> pathlib.Path:
  def build(folder: pathlib.Path) -> None:
    dst_t5x('delta', 'merge', str(tuned / FINAL), str(folder))

  return once('merged', build) / 'checkpoint_1800'


def test_learns_german_to_english(tuned):
  found = runs.metrics(tuned / 'run/inference_eval', 'number_words')
  assert found[1800]['exact_match'] >= 95.0


def test_seed_is_the_checkpoint(tuned, seed):
  lines = [b'dst_t5x.fingerprint.1\n']
  for path, x in sorted(t5x_parameters(seed).items()):
    sha = hashlib.sha256(x.astype('<f4').tobytes()).hexdigest()
    row = [path, 'float32', list(x.shape), sha]
    lines.append(json.dumps(row, separators=(',', ':')).encode() + b'\n')
  expected = 'sha256:' + hashlib.sha256(b''.join(lines)).hexdigest()
  told = manifest(runs.arrays(tuned / FINAL))['seed']
  assert told['fingerprint'] == expected
  assert told['step'] == 1000
  assert expected in (tuned / 'log.txt').read_text()


def test_only_the_subset_moved(seed, merged):
  before, after = t5x_parameters(seed), t5x_parameters(merged)
  sizes: dict[str, int] = {}
  for path, x in before.items():
    sizes[silo(path)] = sizes.get(silo(path), 0) + x.size
  total = round(0.01 * sum(sizes.values()))
  # No silo's largest remainder can exceed its share by a whole parameter.
  budgets = {
    name: int(np.ceil(total * size / sum(sizes.values())))
    for name, size in sizes.items()
  }
  silos = {path: silo(path) for path in before}
  checks.within_budget(before, after, silos, budgets)
  changed = checks.changed(before, after)
  assert sum(int(x.sum()) for x in changed.values()) == total


def test_checkpoint_lists_what_differs(seed, tuned, merged):
  """What the merge changed is what the checkpoint's arrays say, in NumPy."""
  found = runs.arrays(tuned / FINAL)
  expected = {path: np.array(x) for path, x in t5x_parameters(seed).items()}
  for name, budget, entries in manifest(found)['silos']:
    if not budget:
      continue
    key = name.replace('/', '.')
    start = 0
    counts = found[f'state/counts/{key}']
    for (path, layer, _), count in zip(entries, counts, strict=True):
      assert layer is None
      own = slice(start, start + count)
      at = found[f'state/positions/{key}'][own]
      expected[path].reshape(-1)[at] = found[f'target/{key}'][own]
      start += count
  checks.same_bits(expected, t5x_parameters(merged))


def test_no_parameter_is_in_the_checkpoint(tuned, seed):
  shapes = {x.shape for x in t5x_parameters(seed).values() if x.ndim > 1}
  for checkpoint in (tuned / 'run').glob('checkpoint_*'):
    found = runs.arrays(checkpoint)
    target = {p: x for p, x in found.items() if p.startswith('target/')}
    assert target
    assert not {x.shape for x in target.values()} & shapes
    delta = sum(
      x.nbytes
      for p, x in found.items()
      if p.startswith(('target/', 'state/positions/', 'state/counts/'))
    )
    inner = sum(
      x.nbytes for p, x in found.items() if p.startswith('state/inner/')
    )
    # 4 bytes of position and 4 of value for each of 1 % of the parameters.
    budget = manifest(found)['budget']
    assert budget == 5178
    assert 8 * budget <= delta < 8 * budget + 1024
    log = (tuned / 'log.txt').read_text()
    assert f'{delta} bytes of delta, {inner} of inner optimizer state' in log


def test_export_tells_the_sizes_apart(tuned, tmp_path):
  out = str(tmp_path / 'delta.safetensors')
  told = json.loads(
    dst_t5x('delta', 'export', str(tuned / FINAL), out, '--json')
  )
  sizes = told['checkpoint_bytes']
  found = runs.arrays(tuned / FINAL)
  assert sizes['delta'] + sizes['inner_state'] + sizes['other_state'] == sum(
    x.nbytes for x in found.values()
  )
  on_disk = {
    part: sum(
      f.stat().st_size for f in (tuned / FINAL / part).rglob('*') if f.is_file()
    )
    for part in ('state', 'dataset')
  }
  assert sizes['state_on_disk'] == on_disk['state'] > 0
  assert sizes['dataset_on_disk'] == on_disk['dataset'] > 0
  assert told['positions'] == told['budget'] == 5178


STOCK = """
from __gin__ import dynamic_registration
import __main__ as infer_script
import seqio
import dst_t5x.tasks.number_words
from t5x import adafactor, models, utils
from t5x.examples.t5 import network
include 't5x/configs/runs/infer.gin'
include 'models/byte_tiny.gin'
MIXTURE_OR_TASK_NAME = 'number_words'
TASK_FEATURE_LENGTHS = {'inputs': 64, 'targets': 64}
utils.RestoreCheckpointConfig.dtype = 'float32'
utils.DatasetConfig.batch_size = 100
VOCABULARY = @seqio.ByteVocabulary()
seqio.ByteVocabulary.extra_ids = 0
MODEL = @models.EncoderDecoderModel()
models.EncoderDecoderModel:
  module = @network.Transformer()
  input_vocabulary = %VOCABULARY
  output_vocabulary = %VOCABULARY
  optimizer_def = None
network.Transformer.config = @network.T5Config()
network.T5Config:
  vocab_size = %VOCAB_SIZE
  dtype = 'float32'
  emb_dim = %EMB_DIM
  num_heads = %NUM_HEADS
  num_encoder_layers = %NUM_ENCODER_LAYERS
  num_decoder_layers = %NUM_DECODER_LAYERS
  head_dim = %HEAD_DIM
  mlp_dim = %MLP_DIM
  mlp_activations = %MLP_ACTIVATIONS
  dropout_rate = 0.0
  logits_via_embedding = %LOGITS_VIA_EMBEDDING
infer_script.infer.shard_id = 0
infer_script.infer.num_shards = 1
"""


def test_infer_is_the_same_from_delta_and_from_merged(
  once, tuned, merged, seed, tmp_path
):
  """Ours from the delta; stock T5X, without us, from the merged model."""
  ours = runs.predicted(once, tuned)
  stock_file = tmp_path / 'stock.gin'
  stock_file.write_text(
    STOCK.replace(', models', '\nfrom t5x import models').replace(
      ', utils', '\nfrom t5x import utils'
    )
  )
  stock = runs.command(
    'infer',
    str(stock_file),
    CHECKPOINT_PATH=str(merged),
    INFER_OUTPUT_DIR=str(tmp_path / 'stock'),
  )
  runs.run(stock, tmp_path).must_succeed()
  found = runs.predictions(ours)
  assert found == runs.predictions(tmp_path / 'stock')
  assert len(found) == 500

  # And our own runner, from the exported file.
  delta = str(tmp_path / 'delta.safetensors')
  dst_t5x('delta', 'export', str(tuned / FINAL), delta)
  lines = [
    json.loads(line)['inputs']['inputs_pretokenized']
    for line in next(ours.glob('*-00001')).read_text().splitlines()
  ]
  (tmp_path / 'inputs.txt').write_text('\n'.join(lines) + '\n')
  own = dst_t5x(
    'infer',
    '--seed',
    str(seed),
    '--delta',
    delta,
    '--input',
    str(tmp_path / 'inputs.txt'),
  )
  assert own.split('\n')[:-1] == found


def test_eval_is_the_same_from_delta_and_from_merged(tuned, merged, tmp_path):
  found = {}
  for name, checkpoint in (('delta', tuned / FINAL), ('merged', merged)):
    line = runs.command(
      'eval',
      runs.MODEL,
      runs.TASK,
      'runs/eval_t5x.gin',
      CHECKPOINT_PATH=str(checkpoint),
      EVAL_OUTPUT_DIR=str(tmp_path / name),
      BATCH_SIZE=100,
    )
    runs.run(line, tmp_path).must_succeed()
    folder = tmp_path / name / 'inference_eval'
    found[name] = runs.metrics(folder, 'number_words')
  assert found['delta'] == found['merged']
  trained = runs.metrics(tuned / 'run/inference_eval', 'number_words')
  assert found['delta'][1800] == trained[1800]


@pytest.mark.slow
@pytest.mark.parametrize('orbax', [True, False])
def test_from_pretraining_on(tmp_path, orbax):
  """Stock pretraining, then DST on a pair of languages never seen in it."""
  pretrain = runs.command(
    'train',
    runs.MODEL,
    runs.TASK,
    'runs/pretrain_t5x.gin',
    MIXTURE_OR_TASK_NAME='number_words_pretrain',
    TASK_FEATURE_LENGTHS=LENGTHS,
    MODEL_DIR=str(tmp_path / 'seed'),
    TRAIN_STEPS=2500,
    BATCH_SIZE=16,
    CHECKPOINT_PERIOD=2500,
    EVAL_PERIOD=0,
    USE_ORBAX=orbax,
  )
  runs.run(pretrain, tmp_path, limit=3600).must_succeed()
  tune = runs.command(
    'train',
    runs.MODEL,
    'methods/dst.gin',
    runs.TASK,
    'runs/finetune_t5x.gin',
    INITIAL_CHECKPOINT_PATH=str(tmp_path / 'seed/checkpoint_2500'),
    MODEL_DIR=str(tmp_path / 'run'),
    EPSILON=0.01,
    FINETUNE_STEPS=1000,
    TASK_FEATURE_LENGTHS=LENGTHS,
    BATCH_SIZE=16,
    CHECKPOINT_PERIOD=1000,
    EVAL_PERIOD=1000,
  )
  runs.run(tune, tmp_path, limit=3600).must_succeed()
  found = runs.metrics(tmp_path / 'run/inference_eval', 'number_words')
  assert found[3500]['exact_match'] >= 95.0
