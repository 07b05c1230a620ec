"""Rows of our own where the tasks read theirs: TFDS and sacreBLEU directories.

The real data sets cannot be downloaded where the tests run.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from dst_t5x.tasks import wmt_data

Row = Mapping[str, Any]
SUPER_GLUE = 'boolq cb copa multirc record rte wic wsc.fixed'.split()


def prepare(
  name: str, folder: str, splits: Mapping[str, Sequence[Row]]
) -> None:
  """Has TFDS itself write a data set of these rows."""
  builder: Any = tfds.builder(name, data_dir=folder)
  builder._split_generators = lambda *_, **__: {
    split: iter([(str(i), row) for i, row in enumerate(rows)])
    for split, rows in splits.items()
  }
  builder.download_and_prepare()


def super_glue_row(config: str, i: int) -> Row:
  """The i-th row of a configuration, as TFDS wants it."""
  pair = {'premise': f'A {i}.', 'hypothesis': f'B {i}.'}
  labelled: Row = {'idx': i, 'label': i % 2}
  rows: Mapping[str, Row] = {
    'boolq': {'question': f'is it {i}', 'passage': f'{i} it is.'} | labelled,
    'cb': pair | labelled,
    'copa': {
      'premise': f'It fell {i} times.',
      'choice1': f'It was {i}.',
      'choice2': 'It broke.',
      'question': 'effect',
    }
    | labelled,
    'multirc': {
      'paragraph': f'Ann has {i} cats.',
      'question': 'How many?',
      'answer': str(i),
      'idx': {'paragraph': i, 'question': 0, 'answer': 0},
      'label': 1,
    },
    'record': {
      'passage': f'Ann met Eve {i} times.\n@highlight\nEve left',
      'query': '@placeholder left',
      'entities': ['Ann', 'Eve'],
      'answers': ['Eve'],
      'idx': {'passage': i, 'query': 0},
    },
    'rte': pair | labelled,
    'wic': {
      'word': 'bank',
      'sentence1': f'The bank {i}.',
      'sentence2': 'A bank.',
      'start1': 4,
      'end1': 8,
      'start2': 2,
      'end2': 6,
    }
    | labelled,
    'wsc.fixed': {
      'text': f'Ann left as she had {i} cats.',
      'span1_text': 'Ann',
      'span1_index': 0,
      'span2_text': 'she',
      'span2_index': 3,
      'idx': i,
      'label': 1,
    },
  }
  return rows[config]


def gsm8k_row(i: int) -> Row:
  """A sum."""
  return {
    'question': f'What is {i} and 1?',
    'answer': f'{i} + 1 = <<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}',
    'annotation': '',
    'short_answer': str(i + 1),
  }


def trivia_qa_row(i: int) -> Row:
  """A question with two right answers."""
  aliases = [f'Number {i}', f'No. {i}']
  return {
    'question': f'Which number is {i}?',
    'question_id': str(i),
    'question_source': '',
    'entity_pages': [],
    'search_results': [],
    'answer': {
      'value': aliases[0],
      'aliases': aliases,
      'normalized_aliases': [a.lower() for a in aliases],
      'matched_wiki_entity_name': '',
      'normalized_matched_wiki_entity_name': '',
      'normalized_value': aliases[0].lower(),
      'type': '',
    },
  }


def write_tfds(folder: pathlib.Path) -> None:
  """Writes small data sets for SuperGLUE, TriviaQA and GSM8K."""
  place = str(folder)
  for config in SUPER_GLUE:
    rows = [super_glue_row(config, i) for i in range(6)]
    prepare(
      f'super_glue/{config}', place, {'train': rows, 'validation': rows[:5]}
    )
  pronouns = [
    {
      'sentence': f'Ann lent Eve {i} pens because she asked.',
      'pronoun': 'she',
      'candidates': ['Ann', 'Eve'],
      'label': 1,
    }
    for i in range(6)
  ]
  prepare('definite_pronoun_resolution', place, {'train': pronouns})
  questions = [trivia_qa_row(i) for i in range(60)]
  prepare(
    'trivia_qa/unfiltered.nocontext',
    place,
    {'train': questions, 'validation': questions[:5]},
  )
  problems = [gsm8k_row(i) for i in range(12)]
  prepare('gsm8k', place, {'train': problems, 'test': problems[:5]})


def sentences(name: str, field: str) -> list[str]:
  """As many sentences as a WMT test set has."""
  number = wmt_data.SETS[name].sentences
  # Some real sentences hold U+0085, which ends no line.
  return [f'{name} {field} {i}\x85' for i in range(number)]


def put(
  cache: pathlib.Path, name: str, field: str, lines: Sequence[str]
) -> None:
  """Writes one side of a test set into a cache of sacreBLEU's layout."""
  path = cache / name / f'{name.replace("/", "_")}.de-en.{field}'
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(''.join(f'{line}\n' for line in lines).encode())


def write_wmt(cache: pathlib.Path) -> None:
  """Writes all of WMT's test sets, made up."""
  for name, known in wmt_data.SETS.items():
    for field in ('src', *known.references):
      put(cache, name, field, sentences(name, field))
