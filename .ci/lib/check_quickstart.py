"""Checks the report that `dst-t5x quickstart` left, and prints it."""

import json
import pathlib
import sys

report = json.loads((pathlib.Path(sys.argv[1]) / 'report.json').read_text())
for name, value in sorted(report.items()):
  if isinstance(value, (bool, int, float, str)):
    print(f'  {name}: {value}')

wanted = {
  'exact_match_after is at least 95': report['exact_match_after'] >= 95,
  'max_silo_overrun is 0': report['max_silo_overrun'] == 0,
  'reload_predictions_equal is true': report['reload_predictions_equal']
  is True,
}
failed = [claim for claim, holds in wanted.items() if not holds]
for claim in failed:
  print(f'not so: {claim}')

# Time depends on the machine, so that it is told and not judged.
minutes = report['seconds'] / 60
print(
  f'note: quickstart took {minutes:.1f} minutes; the README says under 5 '
  'on 2 cores'
)
sys.exit(bool(failed))
