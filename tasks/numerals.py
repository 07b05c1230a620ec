"""German and English cardinal numbers in words, from 0 to 999,999,999.

Both follow Unicode's spell-out rules (CLDR, common/rbnf/de.xml
`%spellout-numbering` and en.xml `%spellout-cardinal`): 'einhundert'
and not 'hundert', 'three hundred seventeen' without 'and'. So every number has
exactly one spelling, and every spelling one number.
"""

LARGEST = 999_999_999

_ENGLISH_SMALL = (
  'zero one two three four five six seven eight nine ten eleven twelve '
  'thirteen fourteen fifteen sixteen seventeen eighteen nineteen'
).split()
_ENGLISH_TENS = (
  'twenty thirty forty fifty sixty seventy eighty ninety'
).split()

_GERMAN_SMALL = (
  'null ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf '
  'dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn'
).split()
_GERMAN_TENS = (
  'zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig'
).split()


def english(number: int) -> str:
  """Returns a number in English words.

  Args:
    number: whole number from 0 to `LARGEST`.

  Returns:
    The cardinal number, with hyphens from 21 to 99 and no 'and'.

  Raises:
    ValueError: if the number is not an int, or out of range.

  Example:
    >>> english(317), english(21_000_021)
    ('three hundred seventeen', 'twenty-one million twenty-one')
  """
  _check(number)
  if number == 0:
    return _ENGLISH_SMALL[0]
  millions, thousands, rest = _groups(number)
  words = []
  if millions:
    words += [_english_group(millions), 'million']
  if thousands:
    words += [_english_group(thousands), 'thousand']
  if rest:
    words.append(_english_group(rest))
  return ' '.join(words)


def german(number: int) -> str:
  """Returns a number in German words.

  Args:
    number: whole number from 0 to `LARGEST`.

  Returns:
    The cardinal number; below a million it is a single word.

  Raises:
    ValueError: if the number is not an int, or out of range.

  Example:
    >>> german(317), german(2_000_001)
    ('dreihundertsiebzehn', 'zwei Millionen eins')
  """
  _check(number)
  if number == 0:
    return _GERMAN_SMALL[0]
  millions, thousands, rest = _groups(number)
  words = []
  if millions:
    # 'Million' is a feminine noun: its number ends in 'eine', not in 'eins'.
    noun = 'Million' if millions == 1 else 'Millionen'
    words += [_german_group(millions, one='eine'), noun]
  below_million = ''
  if thousands:
    below_million += _german_group(thousands, one='ein') + 'tausend'
  if rest:
    below_million += _german_group(rest, one='eins')
  if below_million:
    words.append(below_million)
  return ' '.join(words)


def _check(number: int) -> None:
  # A bool is an int, and True would silently be spelt 'one'.
  if isinstance(number, bool) or not isinstance(number, int):
    raise ValueError(f'number {number!r} must be an int')
  if not 0 <= number <= LARGEST:
    raise ValueError(f'number {number} must lie in 0..{LARGEST}')


def _groups(number: int) -> tuple[int, int, int]:
  """Returns a number's millions, thousands and ones, each below 1000."""
  return number // 1_000_000, number // 1000 % 1000, number % 1000


def _english_group(number: int) -> str:
  hundreds, rest = divmod(number, 100)
  words = [_ENGLISH_SMALL[hundreds], 'hundred'] if hundreds else []
  if rest >= 20:
    tens, ones = divmod(rest, 10)
    word = _ENGLISH_TENS[tens - 2]
    words.append(f'{word}-{_ENGLISH_SMALL[ones]}' if ones else word)
  elif rest:
    words.append(_ENGLISH_SMALL[rest])
  return ' '.join(words)


def _german_group(number: int, *, one: str) -> str:
  """Spells 1..999; `one` is the form that a final 1 takes here."""
  hundreds, rest = divmod(number, 100)
  word = f'{_GERMAN_SMALL[hundreds]}hundert' if hundreds else ''
  if rest >= 20:
    tens, ones = divmod(rest, 10)
    if ones:
      word += f'{_GERMAN_SMALL[ones]}und'
    return word + _GERMAN_TENS[tens - 2]
  if rest == 1:
    return word + one
  return word + (_GERMAN_SMALL[rest] if rest else '')
