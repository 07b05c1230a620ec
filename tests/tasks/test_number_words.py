import importlib
import math
import sys

import pytest

from dst_t5x.standalone.quiet_tensorflow import seqio
from dst_t5x.tasks import metrics, number_words, numerals

# Written by hand. On 1..9999 and 60,000 draws up to 10^9, the English words
# also equal those of num2words 0.5.14 without its 'and' and commas; so do the
# German ones, but for its 'einhunderteinstausend' and 'einhunderteins
# Millionen', where CLDR has 'eintausend' and 'eine Millionen'.
WORDS = [
  (0, 'null', 'zero'),
  (1, 'eins', 'one'),
  (2, 'zwei', 'two'),
  (5, 'fünf', 'five'),
  (10, 'zehn', 'ten'),
  (11, 'elf', 'eleven'),
  (12, 'zwölf', 'twelve'),
  (16, 'sechzehn', 'sixteen'),
  (17, 'siebzehn', 'seventeen'),
  (20, 'zwanzig', 'twenty'),
  (21, 'einundzwanzig', 'twenty-one'),
  (30, 'dreißig', 'thirty'),
  (40, 'vierzig', 'forty'),
  (67, 'siebenundsechzig', 'sixty-seven'),
  (76, 'sechsundsiebzig', 'seventy-six'),
  (99, 'neunundneunzig', 'ninety-nine'),
  (100, 'einhundert', 'one hundred'),
  (101, 'einhunderteins', 'one hundred one'),
  (317, 'dreihundertsiebzehn', 'three hundred seventeen'),
  (999, 'neunhundertneunundneunzig', 'nine hundred ninety-nine'),
  (1000, 'eintausend', 'one thousand'),
  (1001, 'eintausendeins', 'one thousand one'),
  (1100, 'eintausendeinhundert', 'one thousand one hundred'),
  (
    9430,
    'neuntausendvierhundertdreißig',
    'nine thousand four hundred thirty',
  ),
  (
    21_021,
    'einundzwanzigtausendeinundzwanzig',
    'twenty-one thousand twenty-one',
  ),
  (101_000, 'einhunderteintausend', 'one hundred one thousand'),
  (
    101_101,
    'einhunderteintausendeinhunderteins',
    'one hundred one thousand one hundred one',
  ),
  (1_000_000, 'eine Million', 'one million'),
  (1_001_000, 'eine Million eintausend', 'one million one thousand'),
  (2_000_001, 'zwei Millionen eins', 'two million one'),
  (21_000_000, 'einundzwanzig Millionen', 'twenty-one million'),
  (101_000_000, 'einhunderteine Millionen', 'one hundred one million'),
  (
    999_999_999,
    'neunhundertneunundneunzig Millionen '
    'neunhundertneunundneunzigtausendneunhundertneunundneunzig',
    'nine hundred ninety-nine million nine hundred ninety-nine thousand '
    'nine hundred ninety-nine',
  ),
]
TASKS = [
  'number_words',
  'number_words_de_to_digits',
  'number_words_digits_to_de',
  'number_words_en_to_digits',
  'number_words_digits_to_en',
]


@pytest.mark.parametrize(('number', 'german', 'english'), WORDS)
def test_words(number, german, english):
  assert numerals.german(number) == german
  assert numerals.english(number) == english


@pytest.mark.parametrize('spell', [numerals.german, numerals.english])
def test_words_are_distinct(spell):
  assert len({spell(number) for number in range(10_000)}) == 10_000


@pytest.mark.parametrize('spell', [numerals.german, numerals.english])
@pytest.mark.parametrize(
  ('number', 'message'),
  [
    (-1, r'number -1 must lie in 0\.\.999999999'),
    (10**9, r'number 1000000000 must lie in 0\.\.999999999'),
    (1.0, r'number 1\.0 must be an int'),
    (True, r'number True must be an int'),
    ('7', r"number '7' must be an int"),
  ],
)
def test_what_is_no_number_is_refused(spell, number, message):
  with pytest.raises(ValueError, match=message):
    spell(number)


def test_the_splits_are_disjoint_and_complete():
  splits = number_words.splits()
  assert {k: len(v) for k, v in splits.items()} == {
    'validation': 500,
    'test': 500,
    'train': 8999,
  }
  together = [number for numbers in splits.values() for number in numbers]
  assert sorted(together) == list(range(1, 10_000))


def test_the_splits_never_change():
  # Published scores are of these numbers, so they are fixed for ever. Found
  # with coreutils: for n in $(seq 9999); do printf 'number_words %d' $n |
  # sha256sum | sed "s/ .*/ $n/"; done | sort | cut -d' ' -f2
  splits = number_words.splits()
  assert splits['validation'][:4] == (8467, 8737, 9936, 9110)
  assert splits['test'][:4] == (343, 8162, 900, 3572)
  assert splits['train'][-2:] == (8191, 6077)


def test_no_held_out_number_is_in_any_training_split():
  held_out = {*number_words.splits()['validation']}
  held_out |= {*number_words.splits()['test']}
  spellings = {str(number) for number in held_out}
  spellings |= {numerals.german(number) for number in held_out}
  spellings |= {numerals.english(number) for number in held_out}
  for name in TASKS:
    inputs, targets = number_words.examples(name, 'train')
    sources = {text.split(': ', 1)[1] for text in inputs}
    assert not spellings & (sources | set(targets)), name


def test_pretraining_holds_no_pair_of_german_and_english():
  german = {numerals.german(number) for number in range(1, 10_000)}
  english = {numerals.english(number) for number in range(1, 10_000)}
  assert not german & english
  mixture = seqio.MixtureRegistry.get('number_words_pretrain')
  seen = set()
  for task in mixture.tasks:
    for split in task.splits:
      dataset = task.source.get_dataset(split, shuffle=False)
      for example in dataset.as_numpy_iterator():
        prompt, source = example['inputs'].decode('utf-8').split(': ', 1)
        seen.add(prompt)
        pair = {source, example['targets'].decode('utf-8')}
        assert not (pair & german and pair & english), pair
  assert seen == {'digits', 'deutsch', 'english'}
  for text in number_words.examples('number_words', 'train')[0]:
    assert text.split(': ', 1)[0] not in seen


def test_the_demonstration_as_the_model_sees_it():
  task = seqio.TaskRegistry.get('number_words')
  dataset = task.get_dataset(
    {'inputs': 64, 'targets': 64}, split='test', shuffle=False
  )
  [example] = dataset.take(1).as_numpy_iterator()
  number = number_words.splits()['test'][0]
  # Bytes are ids from 3 on; 1 is EOS.
  for feature, text in (
    ('inputs', f'de-en: {numerals.german(number)}'),
    ('targets', numerals.english(number)),
  ):
    expected = [byte + 3 for byte in text.encode('utf-8')] + [1]
    assert example[feature].tolist() == expected
  assert number_words.VOCABULARY.vocab_size == 259


def test_nothing_is_cut_at_64():
  for name in TASKS:
    for split in number_words.splits():
      for texts in number_words.examples(name, split):
        assert max(len(text.encode('utf-8')) for text in texts) < 64


def test_importing_twice_registers_once():
  before = seqio.TaskRegistry.get('number_words')
  importlib.reload(sys.modules['dst_t5x.tasks.number_words'])
  assert seqio.TaskRegistry.get('number_words') is before


def test_the_mixture_has_equal_rates():
  mixture = seqio.MixtureRegistry.get('number_words_pretrain')
  assert mixture.rate_per_task_name == dict.fromkeys(TASKS[1:], 1.0)


def test_exact_match_is_a_percentage():
  assert metrics.exact_match(['a', 'b', 'c', 'd'], ['a', 'x', 'C', 'd ']) == {
    'exact_match': 25.0
  }


def test_bleu_and_chrf():
  texts = ['the cat sat on the mat again today', 'a b c d']
  assert metrics.bleu(texts, texts)['bleu'] == pytest.approx(100)
  assert metrics.chrf(texts, texts)['chrf'] == pytest.approx(100)
  assert metrics.chrf(texts, ['qqq', 'qqq'])['chrf'] == 0
  assert metrics.bleu(texts, ['qqq', 'qqq'])['bleu'] == 0
  # A prediction that is a prefix loses by the brevity penalty alone, exp(1 -
  # 8 words / 6 words), in BLEU's definition.
  score = metrics.bleu(texts[:1], ['the cat sat on the mat'])['bleu']
  assert score == pytest.approx(100 * math.exp(1 - 8 / 6))
