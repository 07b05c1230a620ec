"""BLEU and chrF with several references, and BLEURT as far as it is there."""

import pytest
import sacrebleu

from dst_t5x.standalone.quiet_tensorflow import seqio
from dst_t5x.tasks import bleurt, metrics

REFERENCES = [
  ['The cat sat on the mat today.', 'A cat was sitting on the mat today.'],
  ['It rains.\x85', 'There is rain.', 'Rain falls.'],
  ['Nobody knows what Zürich said.'],
]
PREDICTIONS = ['A cat sat on the mat today.', 'It RAINS', 'Nobody knows.']


def test_bleu_and_chrf_use_all_references():
  # sacreBLEU's layout: a list of first references, one of second, …
  columns = [
    [texts[i] if i < len(texts) else None for texts in REFERENCES]
    for i in range(3)
  ]
  bleu = metrics.bleu(REFERENCES, PREDICTIONS)
  chrf = metrics.chrf(REFERENCES, PREDICTIONS)
  expected = sacrebleu.corpus_bleu(PREDICTIONS, columns, force=True).score
  assert bleu['bleu'] == pytest.approx(expected)
  expected = sacrebleu.corpus_chrf(PREDICTIONS, columns).score
  assert chrf['chrf'] == pytest.approx(expected)
  first = [texts[0] for texts in REFERENCES]
  assert metrics.bleu(first, PREDICTIONS)['bleu'] < bleu['bleu']
  assert 'nrefs:var' in bleu['bleu_signature'].textdata
  assert 'nc:6' in chrf['chrf_signature'].textdata
  assert 'nrefs:1|' in metrics.bleu(first, first)['bleu_signature'].textdata


def test_an_empty_prediction_is_scored():
  assert metrics.bleu(REFERENCES, ['', '', ''])['bleu'] == 0
  assert metrics.chrf(REFERENCES, ['', '', ''])['chrf'] == 0


def test_bleurt_says_why_it_is_not_computed(monkeypatch, tmp_path):
  monkeypatch.setattr(bleurt.importlib.util, 'find_spec', lambda name: None)
  found = bleurt.bleurt(REFERENCES, PREDICTIONS)
  assert list(found) == ['bleurt_signature']
  assert isinstance(found['bleurt_signature'], seqio.metrics.Text)
  why = str(found['bleurt_signature'].textdata)
  assert 'package bleurt is not installed' in why
  monkeypatch.setattr(bleurt.importlib.util, 'find_spec', lambda name: name)
  monkeypatch.delenv('BLEURT_CHECKPOINT', raising=False)
  text = bleurt.bleurt(REFERENCES, PREDICTIONS)['bleurt_signature'].textdata
  assert 'set BLEURT_CHECKPOINT' in text
  monkeypatch.setenv('BLEURT_CHECKPOINT', str(tmp_path / 'BLEURT-20'))
  text = bleurt.bleurt(REFERENCES, PREDICTIONS)['bleurt_signature'].textdata
  assert 'is no directory' in text


def test_bleurt_against_reference_a(monkeypatch, tmp_path):
  class Scorer:
    def __init__(self, path):
      assert path == str(tmp_path / 'BLEURT-20')

    def score(self, *, references, candidates):
      assert references == [texts[0] for texts in REFERENCES]
      assert candidates == PREDICTIONS
      return [0.5, 0.7, 0.9]

  class Module:
    BleurtScorer = Scorer

  (tmp_path / 'BLEURT-20').mkdir()
  monkeypatch.setenv('BLEURT_CHECKPOINT', str(tmp_path / 'BLEURT-20'))
  monkeypatch.setattr(bleurt.importlib.util, 'find_spec', lambda name: name)
  monkeypatch.setattr(bleurt.importlib, 'import_module', lambda name: Module)
  found = bleurt.bleurt(REFERENCES, PREDICTIONS)
  assert found['bleurt'] == pytest.approx(70)
  assert found['bleurt_signature'].textdata == 'checkpoint:BLEURT-20|ref:first'
