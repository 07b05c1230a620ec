"""Every metric against its definition, written out again here in plain Python.

Predictions are drawn from what decoders really give: right and wrong classes,
nothing, repetitions, other case, Unicode, U+0085.
"""

import collections
import random
import string

import pytest

from dst_t5x.tasks import (
  answers,
  metrics,
  postprocessors,
  superglue_metrics,
)

ODD = [
  '',
  ' ',
  'True',
  'true',
  'TRUE ',
  'False False',
  '真',
  'Tru\x85e',
  '<unk>',
]
WORDS = [
  'the', 'The', 'cat', 'Cat.', 'sat', 'a', 'an', 'u.s.', "o'neil", 'Zürich',
  'ZÜRICH', '–', '3,000', 'x\x85y', '(on)', 'mat!', '‘mat’', '',
]  # fmt: skip
SEEDS = range(20)


def f1(truth, found):
  """Of 'positive' among booleans."""
  both = sum(t and f for t, f in zip(truth, found, strict=True))
  if not both:
    return 0.0
  precision, recall = both / sum(found), both / sum(truth)
  return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize('seed', SEEDS)
def test_cb(seed):
  draw = random.Random(seed)
  labels = ['entailment', 'contradiction', 'neutral']
  count = draw.randint(1, 60)
  gold = draw.choices(labels, k=count)
  texts = draw.choices(labels * 3 + ODD, k=count)
  targets = [postprocessors.class_number(t, labels=labels) for t in gold]
  found = [postprocessors.class_number(t, labels=labels) for t in texts]
  expected = sum(
    f1([g == label for g in gold], [t == label for t in texts])
    for label in labels
  )
  assert superglue_metrics.macro_f1_of_3(targets, found) == {
    'mean_3class_f1': pytest.approx(100 * expected / 3)
  }
  right = sum(g == t for g, t in zip(gold, texts, strict=True))
  assert metrics.accuracy(targets, found) == {
    'accuracy': pytest.approx(100 * right / count)
  }


@pytest.mark.parametrize('seed', SEEDS)
def test_multirc(seed):
  draw = random.Random(seed)
  gold, texts, targets, predictions = [], [], [], []
  questions = collections.defaultdict(list)
  for paragraph in range(draw.randint(1, 4)):
    # A question's number may come again in another paragraph.
    for question in range(draw.randint(1, 3)):
      for answer in range(draw.randint(1, 4)):
        target = draw.choice(['True', 'False'])
        text = draw.choice(['True', 'False', target, target, *ODD])
        example = {
          'idx/paragraph': paragraph,
          'idx/question': question,
          'idx/answer': answer,
        }
        gold.append(target)
        texts.append(text)
        questions[paragraph, question].append(target == text)
        targets.append(
          postprocessors.multirc(target, example=example, is_target=True)
        )
        predictions.append(postprocessors.multirc(text, example=example))
  # An invalid prediction is wrong: the opposite of the truth.
  said = [
    text == 'True' if text in ('True', 'False') else target == 'False'
    for target, text in zip(gold, texts, strict=True)
  ]
  expected = f1([t == 'True' for t in gold], said)
  assert superglue_metrics.multirc_f1_over_all_answers(
    targets, predictions
  ) == {'f1': pytest.approx(100 * expected)}
  whole = sum(map(all, questions.values())) / len(questions)
  assert superglue_metrics.multirc_exact_match(targets, predictions) == {
    'exact_match': pytest.approx(100 * whole)
  }


def words_of(text, marks, gap):
  """SQuAD's and TriviaQA's normal form, letter by letter."""
  plain = ''.join(gap if c in marks else c for c in text.lower())
  runs, last = [], None
  for c in plain:  # runs of letters and digits, and of what is between them
    kind = c.isalnum() or c == '_'
    if kind == last:
      runs[-1] += c
    else:
      runs.append(c)
    last = kind
  return ''.join(
    ' ' if r in ('a', 'an', 'the') else r for r in runs
  ).split()  # fmt: skip


def overlap(target, found):
  left, both = list(target), 0
  for word in found:
    if word in left:
      left.remove(word)
      both += 1
  if not both:
    return 0.0
  precision, recall = both / len(found), both / len(target)
  return 2 * precision * recall / (precision + recall)


def phrase(draw):
  return ' '.join(draw.choices(WORDS, k=draw.randint(0, 4)))


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize(
  ('score', 'marks', 'gap'),
  [
    (answers.squad, string.punctuation, ''),
    (answers.trivia_qa, string.punctuation + '‘’´`_', ' '),
  ],
)
def test_answers(score, marks, gap, seed):
  draw = random.Random(seed)
  exact, best = [], []
  targets, predictions = [], []
  for _ in range(draw.randint(1, 30)):
    right = [phrase(draw) for _ in range(draw.randint(1, 5))]
    text = draw.choice([phrase(draw), draw.choice(right).upper()])
    found = words_of(text, marks, gap)
    wanted = [words_of(r, marks, gap) for r in right]
    exact.append(found in wanted)
    best.append(max(overlap(w, found) for w in wanted))
    targets.append(right)
    predictions.append(text)
  assert score(targets, predictions) == {
    'em': pytest.approx(100 * sum(exact) / len(exact)),
    'f1': pytest.approx(100 * sum(best) / len(best)),
  }


def test_record_counts_the_first_example_of_each_query():
  answered = [b'Ann', b'Ann Lee']
  examples = [
    {'idx/passage': p, 'idx/query': q, 'answers': answered}
    for p, q in ((0, 0), (0, 0), (0, 1), (1, 1))
  ]
  targets = [
    postprocessors.record('Ann', example=example, is_target=True)
    for example in examples
  ]
  predictions = [
    postprocessors.record(text, example=example)
    for text, example in zip(
      ['ann.', 'Eve', 'the Ann Lee and Bob', ''], examples, strict=True
    )
  ]
  # Three queries: right; 'ann lee and bob' has 2 words of 2, among 4; nothing.
  assert superglue_metrics.record(targets, predictions) == {
    'em': pytest.approx(100 / 3),
    'f1': pytest.approx(100 * (1 + 2 / 3) / 3),
  }


def test_a_question_without_answers_is_never_scored():
  for function in (
    postprocessors.record,
    lambda *a, **k: postprocessors.right_answers(*a, key='answers', **k),
  ):
    example = {'answers': [], 'idx/passage': 3, 'idx/query': 8}
    with pytest.raises(
      postprocessors.NoGoldAnswerError, match="'idx/query': 8"
    ):
      function('<unk>', example=example, is_target=True)
