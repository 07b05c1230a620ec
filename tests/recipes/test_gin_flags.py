"""T5X's command line, in both spellings of a flag."""

import pytest

from dst_t5x.recipes import gin_flags

JOINED = [
  '--gin_file=a.gin',
  '--gin_search_paths=x,y',
  '--gin.EPSILON=0.01',
  '--gin_bindings=STEPS=2',
  '--tfds_data_dir=gs://bucket/tfds',
  '--alsologtostderr',
]
APART = [
  *('--gin_file', 'a.gin'),
  *('--gin_search_paths', 'x,y'),
  *('--gin.EPSILON', '0.01'),
  *('--gin_bindings', 'STEPS=2'),
  *('--tfds_data_dir', 'gs://bucket/tfds'),
  '--alsologtostderr',
]


@pytest.mark.parametrize('arguments', [JOINED, APART])
def test_both_spellings_mean_the_same(arguments):
  assert gin_flags.normal(arguments) == JOINED
  assert gin_flags.parse(arguments) == gin_flags.GinFlags(
    files=('a.gin',),
    bindings=('EPSILON=0.01', 'STEPS=2'),
    search_paths=('x', 'y'),
    others=('--tfds_data_dir=gs://bucket/tfds', '--alsologtostderr'),
  )


def test_a_value_may_be_negative_or_hold_an_equals_sign():
  words = gin_flags.normal(['--gin.RATE', '-1', '--gin.NOTE="a=b"'])
  assert words == ['--gin.RATE=-1', '--gin.NOTE="a=b"']
  assert gin_flags.parse(words).bindings == ('RATE=-1', 'NOTE="a=b"')


def test_unknown_words_are_kept_where_that_is_wanted():
  words = ['--mine', '3', '--gin_fil=a', '-x']
  assert gin_flags.parse(words, keep_unknown=True).others == tuple(words)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['mine.gin'], "'mine.gin' is no flag of T5X: write --gin_file"),
    (['--tfds_dir=x'], "no flag '--tfds_dir=x'; did you mean --tfds_data_dir?"),
    (['--notfds_data_dir'], 'T5X has no flag'),
    (['--gin_file', '--gin.A=1'], '--gin_file lacks its value'),
    (['--gin.A', '--gin.B=1'], '--gin.A lacks its value'),
    (['--process_count'], '--process_count lacks its value'),
  ],
)
def test_refuses(arguments, message):
  with pytest.raises(gin_flags.RecipeError, match=message):
    gin_flags.parse(arguments)
