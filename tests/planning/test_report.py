"""Shares of a step, from two measured steps."""

from dst_t5x.planning import report


def step(peak, arguments, operations, accessed, collectives):
  return {
    'fits': True,
    'bytes_per_device': {
      'peak': peak,
      'arguments': arguments,
      'temporaries': 2**30,
      'code': 2**20,
    },
    'operations': operations,
    'bytes_accessed': accessed,
    'collectives': [{'kind': k, 'bytes': b} for k, b in collectives],
    'seconds': 12.0,
  }


TUNED = step(
  4 * 2**30,
  2**30,
  1.25e12,
  2e12,
  [('all-reduce', 100), ('all-reduce', 60), ('all-gather', 7)],
)
FULL = step(
  3 * 2**30, 2**29, 1e12, 1e12, [('all-reduce', 100), ('all-gather', 7)]
)
COMPILED = {'versions': {'libtpu': '1.2.3', 'jax': '4.5.6'}}
LOST = {'fits': False, 'why': 'Ran out of memory', 'seconds': 1.0}


def test_share_is_of_the_tuned_step():
  share = report.summary({**COMPILED, 'tuned': TUNED, 'full': FULL})['share']
  assert share['peak_bytes'] == 0.25
  assert share['arguments_bytes'] == 0.5
  assert share['operations'] == 0.2
  assert share['bytes_accessed'] == 0.5
  assert share['collectives'] == {'all-gather': 0, 'all-reduce': 1}
  assert share['collective_bytes'] == 60


def test_rows_show_it():
  rows = dict(
    report.rows(report.summary({**COMPILED, 'tuned': TUNED, 'full': FULL}))
  )
  assert rows['memory of a step'] == '4.00 GiB (DST 25.0%)'
  assert rows['collectives'] == '1 all-gather (DST 0), 2 all-reduce (DST 1)'
  assert rows['fits, compiled'] == 'yes'
  assert rows['compiled with'] == 'libtpu 1.2.3, jax 4.5.6'


def test_without_baseline_no_share():
  found = report.summary({**COMPILED, 'tuned': TUNED})
  assert found['share'] is None
  assert found['full'] is None
  assert dict(report.rows(found))['memory of a step'] == '4.00 GiB'


def test_what_does_not_fit_says_why():
  found = report.summary({**COMPILED, 'tuned': LOST, 'full': FULL})
  assert (found['fits'], found['share']) == (False, None)
  rows = dict(report.rows(found))
  assert rows['fits, compiled'] == 'no: Ran out of memory'
  assert rows['full fine-tuning fits'] == 'yes'
