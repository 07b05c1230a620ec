"""Winograd schemas: pronouns in texts written for this test, nouns compared."""

import pytest

from dst_t5x.tasks import postprocessors, superglue  # noqa: F401


def wsc_row(text, index, *, label=1, pronoun='it', noun='The cup', idx=0):
  return {
    'text': text,
    'span1_text': noun,
    'span1_index': 0,
    'span2_text': pronoun,
    'span2_index': index,
    'label': label,
    'idx': idx,
  }


@pytest.mark.parametrize(
  ('row', 'source'),
  [
    (
      wsc_row('The cup fell and it broke its rim .', 4),
      'wsc: The cup fell and *it* broke its rim .',
    ),
    # White space is kept, but where the pronoun is not the word at its index.
    (
      wsc_row('The cup fell: it  broke. ', 3),
      'wsc: The cup fell: *it*  broke. ',
    ),
    (
      wsc_row('The cup? Use it , he said. ', 2),
      'wsc: The cup? Use *it* , he said.',
    ),
    (
      wsc_row('The cup? "Use it," said Al.', 2),
      'wsc: The cup? "Use *it* ," said Al.',
    ),
    # 'item' is another word.
    (
      wsc_row('The cup is an item for it.', 3),
      'wsc: The cup is an item for *it* .',
    ),
    (
      wsc_row('The cup fell and broke it', 5),
      'wsc: The cup fell and broke *it*',
    ),
  ],
)
def test_wsc_marks_the_pronoun(row, source, injected, texts):
  with injected('super_glue_wsc_v102_simple_eval', {'test': [row]}) as task:
    assert texts(task, 'test') == [(source, 'The cup')]


def test_wsc_learns_from_right_nouns_only(injected, texts):
  rows = [
    wsc_row('The cup fell and it broke.', 4, label=label, noun=noun)
    for label, noun in ((1, 'The cup'), (0, 'A dog'), (-1, 'A cat'))
  ]
  with injected('super_glue_wsc_v102_simple_train', {'train': rows}) as task:
    assert [target for _, target in texts(task, 'train')] == ['The cup']
  with injected('super_glue_wsc_v102_simple_eval', {'test': rows}) as task:
    assert len(texts(task, 'test')) == 3


def test_wsc_refuses_a_row_without_its_pronoun(injected, texts):
  row = wsc_row('The cup fell and she left.', 4)
  with (
    injected('super_glue_wsc_v102_simple_eval', {'test': [row]}) as task,
    pytest.raises(Exception, match='the pronoun of a WSC row is not in its'),
  ):
    texts(task, 'test')


def test_dpr_marks_the_first_pronoun(injected, texts):
  row = {
    'sentence': 'Then he saw Al, the theatre and he, he said, left.',
    'pronoun': 'he',
    'candidates': ['Al', 'Bo'],
    'label': 1,
  }
  with injected('dpr_v001_simple', {'test': [row]}) as task:
    assert texts(task, 'test') == [
      ('wsc: Then *he* saw Al, the theatre and he, he said, left.', 'Bo')
    ]


@pytest.mark.parametrize(
  ('prediction', 'expected'),
  [
    ('The cup', 1),
    ('CUP', 1),
    ('the old cup', 1),
    ("the cup's rim", 0),
    ('a dog', 0),
    ('', -1),
    ('the', -1),
    ('  the cup ', 1),
    ('cup\x85', 1),  # white space at the end, also this one
    ('cu', 0),
  ],
)
def test_wsc_compares_nouns_without_determiners(prediction, expected):
  example = {'targets_pretokenized': b'The cup', 'label': 1}
  assert postprocessors.wsc(prediction, example=example) == expected
