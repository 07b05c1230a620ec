"""A run's history survives kills and forgets what is done again."""

from dst_t5x.analysis import history
from dst_t5x.analysis.history import History


def test_rows_come_back_in_order(tmp_path):
  log = History(tmp_path)
  log.add('train', 10, {'loss': 1.5})
  log.add('eval', 10, {'a/exact_match': 50.0})
  assert history.read(tmp_path) == [
    {'kind': 'train', 'step': 10, 'loss': 1.5},
    {'kind': 'eval', 'step': 10, 'a/exact_match': 50.0},
  ]


def test_a_resumed_run_drops_rows_after_its_checkpoint(tmp_path):
  log = History(tmp_path)
  for step in (10, 20, 30):
    log.add('train', step, {'loss': step})
  History(tmp_path, resumed_at=20).add('train', 30, {'loss': -1})
  assert [r['loss'] for r in history.read(tmp_path)] == [10, 20, -1]


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path):
  History(tmp_path).add('train', 10, {'loss': 1.0})
  with open(tmp_path / history.FILE, 'a') as file:
    file.write('{"kind": "train", "st')
  assert [r['step'] for r in history.read(tmp_path)] == [10]
  History(tmp_path, resumed_at=10).add('train', 20, {'loss': 2.0})
  assert [r['step'] for r in history.read(tmp_path)] == [10, 20]


def test_no_history_is_empty(tmp_path):
  assert history.read(tmp_path) == []
