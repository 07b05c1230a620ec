"""Metrics of texts, in percent, as seqio calls them."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence


def exact_match(
  targets: Sequence[str], predictions: Sequence[str]
) -> Mapping[str, float]:
  """Returns the percentage of predictions that equal their target.

  t5 calls this `sequence_accuracy`; its `exact_match` is all or nothing.

  Args:
    targets: texts.
    predictions: texts, as many.

  Returns:
    `{'exact_match': percent}`.

  Example:
    >>> exact_match(['one', 'two'], ['one', 'too'])
    {'exact_match': 50.0}
  """
  right = sum(t == p for t, p in zip(targets, predictions, strict=True))
  return {'exact_match': 100.0 * right / len(targets)}


def bleu(
  targets: Sequence[str], predictions: Sequence[str]
) -> Mapping[str, float]:
  """Returns the corpus BLEU of predictions, as sacrebleu computes it.

  Args:
    targets: one reference text per prediction.
    predictions: texts.

  Returns:
    `{'bleu': from 0 to 100}`, with sacrebleu's own defaults (tokenization
    '13a', mixed case).

  Example:
    >>> round(bleu(['it is a fine day'], ['it is a fine day'])['bleu'], 6)
    100.0

  Source: Post, A Call for Clarity in Reporting BLEU Scores (2018).
  """
  import sacrebleu

  # force: no advice on stderr about texts that look tokenized.
  score = sacrebleu.corpus_bleu(list(predictions), [list(targets)], force=True)
  return {'bleu': float(score.score)}


def chrf(
  targets: Sequence[str], predictions: Sequence[str]
) -> Mapping[str, float]:
  """Returns the corpus chrF of predictions, as sacrebleu computes it.

  Args:
    targets: one reference text per prediction.
    predictions: texts.

  Returns:
    `{'chrf': from 0 to 100}`: chrF2, of character 6-grams and no words.

  Example:
    >>> round(chrf(['a fine day'], ['a fine day'])['chrf'], 6)
    100.0

  Source: Popović, chrF: character n-gram F-score (2015).
  """
  import sacrebleu

  score = sacrebleu.corpus_chrf(list(predictions), [list(targets)])
  return {'chrf': float(score.score)}


def text_metrics() -> list[
  Callable[[Sequence[str], Sequence[str]], Mapping[str, float]]
]:
  """Returns the metrics for free text: BLEU and chrF only with sacrebleu."""
  if importlib.util.find_spec('sacrebleu') is None:
    return [exact_match]
  return [exact_match, bleu, chrf]
