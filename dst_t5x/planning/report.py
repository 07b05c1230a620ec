"""What a compiled step needs, for people and for scripts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dst_t5x.planning.plan_table import gib
from dst_t5x.planning.slices import Slice


def summary(compiled: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the numbers of a compiled step, and the method's share of them.

  share = (tuned − full) / tuned, where *tuned* is the step with the method and
  *full* the same step of stock T5X.

  Args:
    compiled: what `compile_process.run` returns.

  Returns:
    JSON-compatible values; 'share' is None without the baseline, or if one of
    the two steps does not fit.
  """
  tuned, full = compiled['tuned'], compiled.get('full')
  numbers: dict[str, Any] = {
    'fits': tuned['fits'],
    'why': tuned.get('why'),
    'bytes_per_device': tuned.get('bytes_per_device'),
    'operations_per_device': tuned.get('operations'),
    'bytes_accessed_per_device': tuned.get('bytes_accessed'),
    'collectives': _counts(tuned.get('collectives') or ()),
    'seconds_to_compile': tuned['seconds'],
    'versions': dict(compiled['versions']),
    'share': None,
    'full': None,
  }
  if full is None:
    return numbers
  numbers['full'] = {
    'fits': full['fits'],
    'bytes_per_device': full.get('bytes_per_device'),
    'operations_per_device': full.get('operations'),
    'bytes_accessed_per_device': full.get('bytes_accessed'),
    'collectives': _counts(full.get('collectives') or ()),
  }
  if 'bytes_per_device' in tuned and 'bytes_per_device' in full:
    numbers['share'] = {
      'peak_bytes': _share(
        tuned['bytes_per_device']['peak'], full['bytes_per_device']['peak']
      ),
      'arguments_bytes': _share(
        tuned['bytes_per_device']['arguments'],
        full['bytes_per_device']['arguments'],
      ),
      'operations': _share(tuned['operations'], full['operations']),
      'bytes_accessed': _share(tuned['bytes_accessed'], full['bytes_accessed']),
      'collectives': {
        kind: count - numbers['full']['collectives'].get(kind, 0)
        for kind, count in numbers['collectives'].items()
      },
      'collective_bytes': _bytes(tuned['collectives'])
      - _bytes(full['collectives']),
    }
  return numbers


def too_large(summary: Mapping[str, Any], slice_: Slice) -> str | None:
  """Returns why a compiled step does not fit.

  Args:
    summary: what the function `summary` returns.
    slice_: the slice that it was compiled for.

  Returns:
    A sentence that says what would help; None if it fits.
  """
  if summary['fits']:
    return None
  bytes_ = summary['bytes_per_device']
  why = summary['why']
  if bytes_ is not None:
    why = (
      f'a step takes {gib(bytes_["peak"])} of the {gib(slice_.device_bytes)} '
      'of each device'
    )
  return (
    f'this run does not fit on {slice_}: {why}; a smaller BATCH_SIZE, a larger '
    'NUM_PARTITIONS or a larger slice takes less memory of each device'
  )


def rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Returns the rows of a table on a compiled step.

  Args:
    summary: what the function `summary` returns.

  Returns:
    Labels and values; the method's share is in brackets where it is known.
  """
  versions = (
    'compiled with',
    ', '.join(f'{name} {n}' for name, n in summary['versions'].items()),
  )
  if summary['bytes_per_device'] is None:
    return [
      ('fits, compiled', f'no: {summary["why"]}'),
      *_full_row(summary),
      versions,
    ]
  bytes_, share = summary['bytes_per_device'], summary['share'] or {}

  def part(name: str) -> str:
    return f' (DST {share[name]:.1%})' if name in share else ''

  counts = ', '.join(
    f'{count} {kind}'
    + (f' (DST {share["collectives"][kind]})' if share else '')
    for kind, count in summary['collectives'].items()
  )
  return [
    (
      'memory of a step',
      f'{gib(bytes_["peak"])}{part("peak_bytes")}',
    ),
    (
      '  arguments',
      f'{gib(bytes_["arguments"])}{part("arguments_bytes")}',
    ),
    ('  temporaries', gib(bytes_['temporaries'])),
    ('  code', gib(bytes_['code'])),
    ('fits, compiled', 'yes' if summary['fits'] else 'no'),
    (
      'operations of a step',
      f'{summary["operations_per_device"]:.3g}{part("operations")}',
    ),
    (
      'bytes accessed',
      f'{summary["bytes_accessed_per_device"]:.3g}{part("bytes_accessed")}',
    ),
    ('collectives', counts or 'none'),
    *(
      [('  bytes, DST', f'{share["collective_bytes"]:,} a pass each')]
      if share
      else []
    ),
    ('compiled in', f'{summary["seconds_to_compile"]:.0f} s'),
    versions,
  ]


def _full_row(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
  full = summary['full']
  if full is None:
    return []
  return [('full fine-tuning fits', 'yes' if full['fits'] else 'no')]


def _counts(collectives: Sequence[Mapping[str, Any]]) -> dict[str, int]:
  return dict(sorted(Counter(each['kind'] for each in collectives).items()))


def _bytes(collectives: Sequence[Mapping[str, Any]]) -> int:
  return sum(each['bytes'] for each in collectives)


def _share(tuned: float, full: float) -> float:
  return (tuned - full) / tuned
