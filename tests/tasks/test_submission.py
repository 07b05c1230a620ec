"""SuperGLUE's submission files, line by line, and the average over tasks."""

import json

import pytest

from dst_t5x.tasks import averages, end_of_document, submission


def lines(path):
  return [json.loads(line) for line in path.read_text().split('\n')[:-1]]


CLASSES = [
  ('boolq', 'BoolQ', 'True', 'true', 'false'),
  ('cb', 'CB', 'neutral', 'neutral', 'entailment'),
  ('copa', 'COPA', 'choice2', 1, 0),
  ('rte', 'RTE', 'not_entailment', 'not_entailment', 'entailment'),
  ('wic', 'WiC', 'True', 'true', 'false'),
  ('axb', 'AX-b', 'not_entailment', 'not_entailment', 'entailment'),
  ('axg', 'AX-g', 'not_entailment', 'not_entailment', 'entailment'),
]


# The labels as super.gluebenchmark.com's FAQ gives them.
@pytest.mark.parametrize(('task', 'file', 'text', 'label', 'first'), CLASSES)
def test_classes(task, file, text, label, first, tmp_path):
  name = f'super_glue_{task}_v102'
  outputs = {name: [({'idx': 12}, text), ({'idx': 3}, 'nonsense')]}
  written = submission.write(tmp_path, outputs)[name]
  assert written == (tmp_path / f'{file}.jsonl', 2, 1)
  assert lines(written.path) == [
    {'idx': 3, 'label': first},
    {'idx': 12, 'label': label},
  ]


def test_wsc_record_and_multirc(tmp_path):
  noun = {'targets_pretokenized': b'The cup', 'label': -1}
  outputs = {
    'super_glue_wsc_v102_simple_eval': [
      ({**noun, 'idx': 0}, 'the cup'),
      ({**noun, 'idx': 1}, 'a dog'),
      ({**noun, 'idx': 2}, ''),
    ],
    'super_glue_record_v102': [
      ({'idx/passage': 0, 'idx/query': 4}, 'Änn\x85'),
      ({'idx/passage': 0, 'idx/query': 4}, 'Änn\x85'),  # another right answer
    ],
    'super_glue_multirc_v102': [
      ({'idx/paragraph': 1, 'idx/question': 7, 'idx/answer': 0}, 'True'),
      ({'idx/paragraph': 0, 'idx/question': 5, 'idx/answer': 1}, 'False'),
      ({'idx/paragraph': 0, 'idx/question': 5, 'idx/answer': 0}, 'True'),
      ({'idx/paragraph': 0, 'idx/question': 6, 'idx/answer': 0}, 'no'),
    ],
    'dpr_v001_simple': [({}, 'left out')],
  }
  submission.write(tmp_path, outputs)
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    'MultiRC.jsonl',
    'ReCoRD.jsonl',
    'WSC.jsonl',
  ]
  assert lines(tmp_path / 'WSC.jsonl') == [
    {'idx': 0, 'label': 'True'},
    {'idx': 1, 'label': 'False'},
    {'idx': 2, 'label': 'False'},
  ]
  assert lines(tmp_path / 'ReCoRD.jsonl') == [{'idx': 4, 'label': 'Änn\x85'}]
  answers = [{'idx': 0, 'label': 1}, {'idx': 1, 'label': 0}]
  assert lines(tmp_path / 'MultiRC.jsonl') == [
    {
      'idx': 0,
      'passage': {
        'questions': [
          {'idx': 5, 'answers': answers},
          {'idx': 6, 'answers': [{'idx': 0, 'label': 0}]},
        ]
      },
    },
    {
      'idx': 1,
      'passage': {'questions': [{'idx': 7, 'answers': answers[:1]}]},
    },
  ]


def test_predictions_are_cut_at_the_mark(tmp_path):
  import gin

  gin.bind_parameter('end_of_document.suffix.text', end_of_document.PAPER)
  outputs = {'super_glue_copa_v102': [({'idx': 0}, 'choice2\n[eod] choice1')]}
  submission.write(tmp_path, outputs)
  assert lines(tmp_path / 'COPA.jsonl') == [{'idx': 0, 'label': 1}]


def test_what_cannot_be_handed_in(tmp_path):
  with pytest.raises(submission.SubmissionError, match='none of gsm8k is part'):
    submission.write(tmp_path, {'gsm8k': []})
  twice = [({'idx': 0}, 'True'), ({'idx': 0}, 'False')]
  with pytest.raises(submission.SubmissionError, match='has two predictions'):
    submission.write(tmp_path, {'super_glue_boolq_v102': twice})


SCORES = {
  'super_glue_boolq_v102': {'accuracy': 80.0},
  'super_glue_cb_v102': {'mean_3class_f1': 70.0, 'accuracy': 90.0},
  'super_glue_copa_v102': {'accuracy': 60.0},
  'super_glue_multirc_v102': {'f1': 70.0, 'exact_match': 30.0},
  'super_glue_record_v102': {'em': 80.0, 'f1': 90.0},
  'super_glue_rte_v102': {'accuracy': 75.0},
  'super_glue_wic_v102': {'accuracy': 65.0},
  'super_glue_wsc_v102_simple_eval': {'accuracy': 55.0},
}


def test_average_takes_tasks_with_several_scores_first():
  # (80 + 80 + 60 + 50 + 85 + 75 + 65 + 55) / 8, by hand.
  expected = (68.75, 8, 8)
  assert averages.average(SCORES) == expected
  more = {'dpr_v001_simple': {'accuracy': 1.0}, **SCORES}
  assert averages.average(more) == expected
  assert averages.published(SCORES) == {
    'T5-Small': 86.3,
    'T5-Base': 88.5,
    'T5-Large': 89.9,
    'T5-XL': 91.6,
    'T5-XXL': 92.3,
  }


def test_average_of_other_tasks():
  assert averages.average({'gsm8k': {'accuracy': 5.0}}) is None
  pair = {'a': {'x': 10.0}, 'b': {'x': 20.0, 'y': 40.0}}
  assert averages.average(pair) == (20.0, 2, 2)
  assert averages.published(pair) == {}
