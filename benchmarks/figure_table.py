"""The figures that the documentation shows: what measures each, and its text.

A figure's text has the numbers in braces; `figure_record` puts them into the
document, and a test holds that the document has those that were recorded.
"""

import json
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
_GIB = 2**30

Texts = Mapping[str, str]


class Figure(NamedTuple):
  """One or more numbers of a document that one command measures.

  Attributes:
    document: the file that shows them, from the repository's root.
    text: as the document has it; names in braces stand for the numbers.
    command: what measures them, run by bash in a folder of its own, in which
      `benchmarks` is that of the repository.
    epsilon: fraction of the parameters that the command lets change.
    costs: how long that takes on two CPU cores.
    read: returns the numbers, as the text has them, from that folder.
    packages: whose versions matter besides those of JAX.
  """

  document: str
  text: str
  command: str
  epsilon: str
  costs: str
  read: Callable[[pathlib.Path], Texts]
  packages: tuple[str, ...] = ()


def command_of(document: str, containing: str) -> str:
  """Returns the bash block of a document that contains a text.

  Args:
    document: from the repository's root.
    containing: what only one block contains.

  Returns:
    The block's lines.

  Raises:
    ValueError: unless there is exactly one such block.
  """
  blocks = re.findall(
    r'^```bash\n(.*?)^```$',
    (REPOSITORY / document).read_text(),
    re.M | re.S,
  )
  found = [block for block in blocks if containing in block]
  if len(found) != 1:
    raise ValueError(
      f'{document} has {len(found)} bash blocks with {containing!r}, not one'
    )
  return found[0].strip()


def _json(folder: pathlib.Path, name: str) -> Any:
  return json.loads((folder / name).read_text())


def _quickstart(folder: pathlib.Path) -> Texts:
  report = _json(folder, 'quickstart-run/report.json')
  return {
    'before': f'{report["exact_match_before"]:.1f}',
    'after': f'{report["exact_match_after"]:.1f}',
    'changed': f'{report["params_changed"]:,}',
    'delta_bytes': f'{report["delta_bytes"]:,}',
    'share': f'{100 * report["delta_bytes"] / report["dense_bytes"]:.1f}',
  }


def _t5x_run(folder: pathlib.Path) -> Texts:
  file = folder / 'run/inference_eval/number_words-metrics.jsonl'
  rows = [json.loads(line) for line in file.read_text().splitlines()]
  score = {row['step']: f'{row["exact_match"]:.1f}' for row in rows}
  return {f'after_{step}': score[step] for step in (400, 800, 1200)}


def _step(folder: pathlib.Path) -> Texts:
  step = _json(folder, 'step.json')['step']
  return {
    'exact': f'{step["exact"]["cpu_ratio"]:.2f}',
    'sorting': f'{step["by_sorting"]["cpu_ratio"]:.1f}',
  }


def _t5x_step(folder: pathlib.Path) -> Texts:
  step = _json(folder, 't5x_step.json')['step']
  return {
    'exact': f'{step["exact"]["cpu_ratio"]:.2f}',
    'reported': f'{step["reported"]["cpu_ratio"]:.2f}',
  }


def _start_up(folder: pathlib.Path) -> Texts:
  runs = {
    (run['layers'], run['method']): sum(
      run['phases'][phase]['cpu'] for phase in ('begin', 'save', 'compile')
    )
    for run in _json(folder, 'start_up.json')['runs']
  }
  return {
    f'layers_{layers}': f'{runs[layers, "dst"] / runs[layers, "full"]:.2f}'
    for layers in (2, 6, 12)
  }


def _delta_size(folder: pathlib.Path) -> Texts:
  (row,) = (
    row
    for row in _json(folder, 'delta_size.json')
    if (row['model'], row['epsilon']) == ('small', 1e-4)
  )
  return {'over_bound': f'{row["position_bits_over_bound"]:.3f}'}


def _plan(folder: pathlib.Path) -> Texts:
  planned = _json(folder, 'plan.json')
  counted, compiled = planned['counted'], planned['compiled']
  kept, share = counted['bytes_per_device'], compiled['share']
  mesh = counted['mesh']
  return {
    'mesh': f'{mesh["data"]} × {mesh["model"]}',
    'memory': f'{compiled["bytes_per_device"]["peak"] / _GIB:.2f}',
    **{
      name: f'{kept[name] / _GIB:.1f}'
      for name in ('parameters', 'seed', 'subset_state')
    },
    'memory_share': f'{100 * share["peak_bytes"]:.1f}',
    'operations': f'{100 * share["operations"]:.2f}',
    'accessed': f'{100 * share["bytes_accessed"]:.1f}',
    'reductions': str(share['collectives'].get('all-reduce', 0)),
    'all_reductions': str(compiled['collectives'].get('all-reduce', 0)),
    'bytes': f'{share["collective_bytes"]:,}',
  }


_RATES = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
_SWEPT = {
  'full': ('full', 1.0),
  '1e-1': ('dst', 0.1),
  '1e-2': ('dst', 0.01),
  '1e-3': ('dst', 0.001),
  '1e-4': ('dst', 0.0001),
}
# Of the runs that did not diverge, none ended above 2.5.
_DIVERGED_LOSS = 3.0
_SWEEP = 'python benchmarks/number_words_sweep.py --json sweep.json'


def _learning_rates(folder: pathlib.Path) -> Texts:
  rows = _json(folder, 'sweep.json')
  texts = {}
  for i, (method, epsilon) in enumerate(_SWEPT.values()):
    for j, rate in enumerate(_RATES):
      runs = [
        row
        for row in sorted(rows, key=lambda row: row['random_seed'])
        if (row['method'], row['epsilon'], row['rate'])
        == (method, epsilon, rate)
      ]
      cell = ', '.join(
        f'{row["exact_match"]:.1f} ({row["loss"]:.2g})' for row in runs
      )
      if any(not row['loss'] <= _DIVERGED_LOSS for row in runs):
        cell = 'diverged'
      texts[f'cell_{i}_{j}'] = cell or '–'
  return texts


def plan_of(size: str, topology: str, memory: str, costs: str) -> Figure:
  """Returns the figure of a row of the table of slices."""
  model = size.lower()
  return Figure(
    document='launch/README.md',
    text=f'| {size} | {topology} | {{mesh}} | {{memory}} of {memory} GiB | '
    '{parameters}, {seed}, {subset_state} GiB | {memory_share} % | '
    '{operations} % | {accessed} % | {reductions} of {all_reductions}, '
    '{bytes} bytes |',
    command=f'dst-t5x plan --model {model} --topology {topology} --epsilon '
    '1e-4 --gin.DTYPE=\'"bfloat16"\' --json >plan.json',
    epsilon='1e-4',
    costs=costs,
    read=_plan,
    packages=('flax', 't5x', 'libtpu'),
  )


FIGURES: Mapping[str, Figure] = {
  'quickstart': Figure(
    document='README.md',
    text='exact match before {before} % exact match after {after} % parameters '
    'changed {changed} of 517,760 (1.00 %) budget 5,178 largest silo overrun 0 '
    'delta / dense bytes {delta_bytes} / 2,071,040 ({share} %)',
    command='dst-t5x quickstart',
    epsilon='0.01',
    costs='4 minutes',
    read=_quickstart,
    packages=('optax', 'seqio', 'tensorflow'),
  ),
  't5x_run': Figure(
    document='gin/README.md',
    text='The first run reached {after_400} % exact match after 400 steps, '
    '{after_800} % after 800 and {after_1200} % after 1,200',
    command=command_of('gin/README.md', 'runs/finetune_t5x.gin'),
    epsilon='0.01',
    costs='7 minutes',
    read=_t5x_run,
    packages=('flax', 't5x', 'seqio', 'tensorflow'),
  ),
  'step': Figure(
    document='README.md',
    text='takes {exact} times as long as one of full fine-tuning with the '
    'exact search, {sorting} with sorting (`benchmarks/step.py`)',
    command='python benchmarks/step.py --part step --variant exact --variant '
    'by_sorting --json step.json',
    epsilon='1e-4',
    costs='4 minutes',
    read=_step,
    packages=('optax',),
  ),
  't5x_step': Figure(
    document='README.md',
    text="in T5X's own step with Adafactor {exact}, or {reported} with metrics "
    'at every step (`benchmarks/t5x_step.py`)',
    command='python benchmarks/t5x_step.py --variant exact --variant reported '
    '--json t5x_step.json',
    epsilon='1e-4',
    costs='6 minutes',
    read=_t5x_step,
    packages=('flax', 't5x'),
  ),
  'start_up': Figure(
    document='README.md',
    text='until its first step T5X works {layers_2}, {layers_6} and '
    '{layers_12} times as long at 2 + 2, 6 + 6 and 12 + 12 layers of tiny '
    'width (`benchmarks/start_up.py`)',
    command='python benchmarks/start_up.py --json start_up.json',
    epsilon='0.01',
    costs='5 minutes',
    read=_start_up,
    packages=('flax', 't5x', 'seqio', 'tensorflow'),
  ),
  'delta_size': Figure(
    document='README.md',
    text='The delta file spends {over_bound} times the entropy bound on '
    'positions (`benchmarks/delta_size.py`)',
    command='python benchmarks/delta_size.py --json delta_size.json',
    epsilon='1e-4',
    costs='1 minute',
    read=_delta_size,
    packages=('safetensors',),
  ),
  'learning_rates': Figure(
    document='dst_t5x/core/README.md',
    text=' '.join(
      f'| {row} | '
      + ' | '.join(f'{{cell_{i}_{j}}}' for j in range(len(_RATES)))
      + ' |'
      for i, row in enumerate(_SWEPT)
    ),
    command='\n'.join(
      (
        f'{_SWEEP} --methods full --epsilons 1 --rates 0.01,0.03,0.1 '
        '--random-seeds 0',
        f'{_SWEEP} --epsilons 1e-1 --rates 0.01,0.03,0.1,0.3,1,3 '
        '--random-seeds 0',
        f'{_SWEEP} --epsilons 1e-2,1e-3,1e-4 --random-seeds 0',
        f'{_SWEEP} --epsilons 1e-2 --rates 0.1,0.3 --random-seeds 1',
        f'{_SWEEP} --epsilons 1e-3 --rates 0.01,0.3,1,30 --random-seeds 1',
        f'{_SWEEP} --epsilons 1e-4 --rates 0.01,1,3,30 --random-seeds 1',
      )
    ),
    epsilon='1, 0.1, 0.01, 0.001, 0.0001',
    costs='90 minutes',
    read=_learning_rates,
    packages=('optax', 'seqio', 'tensorflow'),
  ),
  'plan_base': plan_of('base', 'v5e:4x4', '15.75', '8 minutes'),
  'plan_xl': plan_of('XL', 'v5p:2x4x4', '95.74', '25 minutes'),
  'plan_xxl': plan_of('XXL', 'v5p:4x4x4', '95.74', '20 minutes'),
}
