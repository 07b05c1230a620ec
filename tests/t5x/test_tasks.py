"""The paper's tasks inside stock T5X: trained, scored, read back from disk.

All rows are ours, and bytes stand in for T5's vocabulary: neither the data
sets nor its file can be downloaded where the tests run.
"""

import json
import re
from typing import NamedTuple

import pytest
import sacrebleu

from tests import task_data
from tests.t5x import runs

LAST = 1004
EXAMPLES = 3
SETTINGS = {
  'TASK_FEATURE_LENGTHS': {'inputs': 64, 'targets': 32},
  'BATCH_SIZE': 8,
  'VOCABULARY': runs.Gin('@vocabularies.byte()'),
}


class Case(NamedTuple):
  """What a run of a gin file of tasks/ must leave.

  Attributes:
    inputs: what each of its tasks reads, as a pattern.
    scores: names of each task's numbers.
    beam: the paper's beam size.
  """

  inputs: dict[str, str]
  scores: dict[str, set[str]]
  beam: int = 1


CASES = {
  'super_glue': Case(
    {
      'super_glue_boolq_v102': r'boolq passage: \d it is\. question: is it \d',
      'super_glue_cb_v102': r'cb hypothesis: B \d\. premise: A \d\.',
      'super_glue_copa_v102': r'copa choice1: It was \d\. choice2: It broke\.'
      r' premise: It fell \d times\. question: effect',
      'super_glue_multirc_v102': r'multirc question: How many\? answer: \d'
      r' paragraph: Ann has \d cats\.',
      'super_glue_record_v102': 'record query: @placeholder left entities:'
      r' Ann, Eve passage: Ann met Eve \d times\. Eve left',
      'super_glue_rte_v102': r'rte hypothesis: B \d\. premise: A \d\.',
      'super_glue_wic_v102': r'wic sentence1: The bank \d\. sentence2: A bank\.'
      ' word: bank',
      'super_glue_wsc_v102_simple_eval': r'wsc: Ann left as \*she\* had \d'
      r' cats\.',
    },
    {
      'super_glue_cb_v102': {'mean_3class_f1', 'accuracy'},
      'super_glue_multirc_v102': {'f1', 'exact_match'},
      'super_glue_record_v102': {'em', 'f1'},
      **{
        f'super_glue_{name}': {'accuracy'}
        for name in (
          'boolq_v102 copa_v102 rte_v102 wic_v102 wsc_v102_simple_eval'
        ).split()
      },
    },
  ),
  'trivia_qa': Case(
    {'trivia_qa_open': r'trivia_qa question: Which number is \d+\?'},
    {'trivia_qa_open': {'em', 'f1'}},
  ),
  'wmt22': Case(
    {'wmt22_de_en': 'translate German to English: wmt21 src \\d+\x85'},
    {'wmt22_de_en': {'bleu', 'chrf'}},
    beam=4,
  ),
  'gsm8k': Case(
    {'gsm8k': r'gsm8k question: What is \d+ and 1\?'}, {'gsm8k': {'accuracy'}}
  ),
}


@pytest.fixture(scope='module')
def rows(once):
  def build(folder):
    task_data.write_tfds(folder / 'tfds')
    task_data.write_wmt(folder / 'sacrebleu')

  return once('task_rows', build)


@pytest.fixture(autouse=True)
def only_these_rows(rows, monkeypatch):
  monkeypatch.setenv('SACREBLEU', str(rows / 'sacrebleu'))
  monkeypatch.setenv('TFDS_DATA_DIR', str(rows / 'nothing'))


def line(main, rows, *files, **macros):
  found = runs.command(main, *files, **SETTINGS, **macros)
  return [*found, f'--tfds_data_dir={rows / "tfds"}']


def train(once, rows, seed, name):
  def build(folder):
    files = ('methods/dst.gin', f'tasks/{name}.gin', 'runs/finetune_t5x.gin')
    macros = {
      'INITIAL_CHECKPOINT_PATH': str(seed),
      'MODEL_DIR': str(folder / 'run'),
      'EPSILON': 0.01,
      'FINETUNE_STEPS': LAST - 1000,
      'CHECKPOINT_PERIOD': LAST - 1000,
      'EVAL_PERIOD': LAST - 1000,
      'EVAL_STEPS': 1,
      'EVAL_NUM_EXAMPLES': EXAMPLES,
    }
    runs.run(
      line('train', rows, runs.MODEL, *files, **macros), folder
    ).must_succeed()

  return once(f'task_{name}', build) / 'run'


def decoded(folder, task):
  """What seqio's evaluator wrote of every example."""
  path = folder / f'inference_eval/{task}-{LAST:06}.jsonl'
  # Sentences hold U+0085, which ends no line.
  return [json.loads(text) for text in path.read_text().split('\n') if text]


def expected_scores(task, examples):
  """Scores that can be had without our code, from what was written."""
  targets = [example['target'] for example in examples]
  found = [example['prediction'] for example in examples]
  if task == 'wmt22_de_en':
    references = [list(column) for column in zip(*targets, strict=True)]
    return {
      'bleu': sacrebleu.corpus_bleu(found, references).score,
      'chrf': sacrebleu.corpus_chrf(found, references).score,
    }
  right = [a == b for a, b in zip(targets, found, strict=True)]
  return {'accuracy': 100.0 * sum(right) / len(right)}


@pytest.mark.parametrize(
  'name',
  [
    'super_glue',
    'wmt22',
    pytest.param('trivia_qa', marks=pytest.mark.slow),
    pytest.param('gsm8k', marks=pytest.mark.slow),
  ],
)
def test_trains_and_is_scored(once, rows, seed, name):
  run, case = train(once, rows, seed, name), CASES[name]
  assert f'BEAM_SIZE = {case.beam}\n' in (run / 'config.gin').read_text()

  arrays = runs.arrays(run / f'checkpoint_{LAST}')
  counts = [x.sum() for p, x in arrays.items() if p.startswith('state/counts/')]
  assert sum(counts) == 5178

  assert len(runs.scalars(run / 'train')['loss']) > 0
  for task, pattern in case.inputs.items():
    examples = decoded(run, task)
    assert len(examples) == EXAMPLES
    for example in examples:
      assert re.fullmatch(pattern, example['input']['inputs_pretokenized'])
    scores = runs.metrics(run / 'inference_eval', task)[LAST]
    numbers = {k: x for k, x in scores.items() if not isinstance(x, str)}
    assert set(numbers) == case.scores[task]
    for key, value in expected_scores(task, examples).items():
      if key in numbers:
        assert numbers[key] == pytest.approx(value)
    (loss,) = runs.scalars(run / 'training_eval' / task)['loss'].values()
    assert 0 < loss < 20


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_eval_agrees_with_training(once, rows, seed, name, tmp_path):
  run = train(once, rows, seed, name)
  evaluate = line(
    'eval',
    rows,
    runs.MODEL,
    f'tasks/{name}.gin',
    'runs/eval_t5x.gin',
    CHECKPOINT_PATH=str(run / f'checkpoint_{LAST}'),
    EVAL_OUTPUT_DIR=str(tmp_path / 'out'),
    EVAL_NUM_EXAMPLES=EXAMPLES,
  )
  runs.run(evaluate, tmp_path).must_succeed()
  for task in CASES[name].inputs:
    trained = runs.metrics(run / 'inference_eval', task)
    assert runs.metrics(tmp_path / 'out/inference_eval', task) == trained


@pytest.mark.slow
@pytest.mark.parametrize('name', CASES)
def test_infer_agrees_with_training(once, rows, seed, name, tmp_path):
  run = train(once, rows, seed, name)
  # T5X infers on all tasks of a mixture, and two of SuperGLUE's only train.
  task = list(CASES[name].inputs)[-1]
  infer = line(
    'infer',
    rows,
    runs.MODEL,
    f'tasks/{name}.gin',
    'runs/infer_t5x.gin',
    CHECKPOINT_PATH=str(run / f'checkpoint_{LAST}'),
    INFER_OUTPUT_DIR=str(tmp_path / 'out'),
    MIXTURE_OR_TASK_NAME=task,
    SPLIT='validation',
    NUM_SHARDS=1 if name != 'wmt22' else 20,
  )
  runs.run(infer, tmp_path).must_succeed()
  (file,) = (tmp_path / 'out').glob(f'{task}-predict.jsonl-00000-of-*[0-9]')
  found = {
    row['inputs']['inputs_pretokenized']: row['prediction']
    for row in map(json.loads, filter(None, file.read_text().split('\n')))
  }
  shared = 0
  for example in decoded(run, task):
    text = example['input']['inputs_pretokenized']
    if text in found:
      assert found[text] == example['output']
      shared += 1
  assert shared
