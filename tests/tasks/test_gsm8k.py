import pytest

from dst_t5x.tasks import gsm8k, postprocessors


@pytest.mark.parametrize(
  ('text', 'number'),
  [
    ('So 3 + 4 = 7.\n#### 7', '7'),
    ('#### 1,080', '1080'),
    ('#### $1,080.00 in all', '1080'),
    ('#### 72 clips, not 71', '72'),
    ('#### -5', '-5'),
    ('#### −5 degrees', '-5'),
    ('#### -$5', '-5'),
    ('#### .5', '0.5'),
    ('#### 007.50%', '7.5'),
    ('#### 0.0', '0'),
    ('#### -0', '0'),
    ('#### 1,2', '1'),
    ('#### 12,34', '12'),
    ('#### 1000,000', '1000'),
    ('#### 109,200,000', '109200000'),
    ('12345678901234567890123456789012.0', '12345678901234567890123456789012'),
    ('#### 5 #### 6', '6'),
    ('#### none, but 4 before', '4'),
    ('5 - 3 is 2', '2'),
    ('it is 5-3', '3'),
    ('The answer is 1,234 apples.', '1234'),
    ('version 3.', '3'),
    ('7\x85####\x858', '8'),
    ('8 #### ', '8'),
    ('no number', None),
    ('', None),
    ('####', None),
  ],
)
def test_final_numbers(text, number):
  assert gsm8k.final_number(text) == number


def test_gsm8k_accuracy_counts_numbers_alone():
  targets = [gsm8k.final_number(f'#### {t}', is_target=True) for t in (1, 2, 3)]
  predictions = [gsm8k.final_number(t) for t in ('1.0 boxes', '', '#### 4')]
  assert gsm8k.accuracy(targets, predictions) == {
    'accuracy': pytest.approx(100 / 3)
  }
  with pytest.raises(postprocessors.NoGoldAnswerError, match="'none' has no"):
    gsm8k.final_number('none', is_target=True)
