from typing import Any

import pytest

from dst_t5x.standalone.quiet_tensorflow import seqio
from dst_t5x.tasks import gsm8k, triviaqa  # noqa: F401

ROW = {
  'question': 'Who wrote it,\x85 Ann or Eve?',
  'answer': {'value': 'Ann Lee', 'aliases': ['Lee, Ann', 'Ann  Lee', 'Änn']},
}


def test_trivia_qa_needs_no_document(injected, texts):
  with injected('trivia_qa_open', {'test': [ROW]}) as task:
    assert texts(task, 'test') == [
      ('trivia_qa question: Who wrote it,\x85 Ann or Eve?', 'Ann Lee')
    ]


@pytest.mark.parametrize(
  ('prediction', 'right'),
  [
    ('the ann lee!', 100),
    ('LEE ANN', 100),
    ('änn', 100),
    ('Ann\x85Lee', 100),
    ('Ann Lee Ann Lee', 0),
    ('ann', 0),
    ('', 0),
  ],
)
def test_trivia_qa_accepts_every_alias(prediction, right, injected):
  with injected('trivia_qa_open', {'test': [ROW]}) as task:
    [row] = task.get_dataset(
      None, split='test', shuffle=False
    ).as_numpy_iterator()
    target = task.postprocess_fn('Ann Lee', example=row, is_target=True)
    [score] = task.metric_fns
    found = task.postprocess_fn(prediction, example=row, is_target=False)
    assert score([target], [found])['em'] == right


def test_trivia_qa_splits_are_those_of_seqios_documentation():
  source: Any = seqio.TaskRegistry.get('trivia_qa_open').source
  assert set(source.splits) == {'train', 'validation', 'test'}
  # TFDS hides the answers of its test split, so ours is its validation.
  assert source.tfds_dataset._split_map == {
    'train': 'train[:90%]',
    'validation': 'train[90%:]',
    'test': 'validation',
  }


def test_gsm8k_writes_the_rationale_without_calculator_notes(injected, texts):
  row = {
    'question': 'Ann has 3 $5 notes.\nHow much?',
    'answer': 'She has 3*5 = $<<3*5=15>>15, as <<15+0=15.0>>said.\n#### 15',
  }
  with injected('gsm8k', {'test': [row]}) as task:
    assert texts(task, 'test') == [
      (
        'gsm8k question: Ann has 3 $5 notes.\nHow much?',
        'She has 3*5 = $15, as said.\n#### 15',
      )
    ]
