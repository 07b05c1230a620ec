"""What benchmarks/start_up.py makes of T5X's log; nothing is timed."""

import importlib.util
import io
import pathlib

import pytest
import rich.console

_FILE = pathlib.Path(__file__).parents[1] / 'benchmarks' / 'start_up.py'


@pytest.fixture(scope='module')
def start_up():
  spec = importlib.util.spec_from_file_location('start_up', _FILE)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_phases_and_ratio_in_the_table(start_up):
  full = start_up.phases(
    {'begin': (8, 4), 'save': (9, 5), 'compile': (19, 10), 'end': (30, 12)}
  )
  assert full['compile'] == {'wall': 10, 'cpu': 5}
  dst = start_up.phases(
    {'begin': (8, 4), 'save': (10, 7), 'compile': (38, 15), 'end': (50, 20)}
  )
  results = [
    {'layers': 12, 'method': 'full', 'phases': full},
    {'layers': 12, 'method': 'dst', 'phases': dst},
  ]
  out = io.StringIO()
  rich.console.Console(file=out, width=120).print(start_up.make_table(results))
  rows = [line.split('│') for line in out.getvalue().splitlines()]
  cells = {row[2].strip(): row for row in rows if len(row) > 2}
  assert [c.strip() for c in cells['dst'][3:9]] == [
    '4.0', '3.0', '8.0', '5.0', '1.50', '2.00'
  ]  # fmt: skip
  assert cells['full'][7].strip() == '1.00'


def test_a_phase_that_did_not_end(start_up):
  with pytest.raises(ValueError, match='end'):
    start_up.phases({'begin': (1, 1), 'save': (2, 2), 'compile': (3, 3)})
