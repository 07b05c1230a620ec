"""The measured figures in the documents are those that were recorded."""

import datetime
import importlib
import pathlib
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).resolve().parents[1] / 'benchmarks'
sys.path.insert(0, str(BENCHMARKS))
try:
  figures = importlib.import_module('figures')
finally:
  sys.path.remove(str(BENCHMARKS))
RECORD = figures.record()


def document(name):
  return (figures.REPOSITORY / name).read_text()


def test_every_figure_is_recorded():
  assert set(RECORD) == set(figures.FIGURES)


@pytest.mark.parametrize('name', RECORD)
def test_a_document_shows_what_was_recorded(name):
  figure = figures.FIGURES[name]
  shown = figures.shown(figure, document(figure.document))
  assert shown.groupdict() == RECORD[name]['texts']


@pytest.mark.parametrize('name', RECORD)
def test_the_record_says_how_a_figure_was_measured(name):
  figure, about = figures.FIGURES[name], RECORD[name]
  # A command that was changed since would measure something else.
  assert about['command'] == figure.command
  # Of the two rows that were measured before there was a record, the date and
  # the versions are known, and ε is not.
  older = name in ('plan_xl', 'plan_xxl') and about['date'] == '2026-11-21'
  assert about['epsilon'] == ('not noted' if older else figure.epsilon)
  assert about['document'] == figure.document
  assert datetime.date.fromisoformat(about['date'])
  assert set(about['versions']) >= {'python', 'jax', *figure.packages}
  assert 'not there' not in about['versions'].values()


def test_the_page_shows_the_record():
  assert figures.PAGE.read_text() == figures.page(RECORD)


@pytest.mark.parametrize(
  'name', sorted({a['document'] for a in RECORD.values()})
)
def test_a_document_with_figures_leads_to_the_record(name):
  assert 'benchmarks/figures.md' in document(name)


@pytest.mark.parametrize(
  ('text', 'count'),
  [
    ('in all 2.5 %\nof it', 1),
    ('in all 2.5 %', 0),
    (2 * 'in all 1 % of it', 2),
  ],
)
def test_a_figure_is_found_once_or_refused(text, count):
  figure = figures.FIGURES['step']._replace(text='in all {share} % of it')
  if count == 1:
    assert figures.shown(figure, text)['share'] == '2.5'
  else:
    with pytest.raises(ValueError, match=f'shows this {count} times'):
      figures.shown(figure, text)


def test_numbers_are_put_into_the_document(tmp_path, monkeypatch):
  monkeypatch.setattr(figures, 'REPOSITORY', tmp_path)
  (tmp_path / 'a.md').write_text('It took 3 s, or\n7 % of that.\n')
  figure = figures.FIGURES['step']._replace(
    document='a.md', text='took {seconds} s, or {share} % of'
  )
  figures.put(figure, {'seconds': '12', 'share': '0.5'})
  assert document('a.md') == 'It took 12 s, or\n0.5 % of that.\n'
