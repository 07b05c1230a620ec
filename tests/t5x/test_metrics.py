"""The subset's metrics, as they lie in TensorBoard's files."""

import jax
import numpy as np
import pytest

from dst_t5x.core import methods, plans, selective, silos
from dst_t5x.hooks import subset_metrics
from dst_t5x.network import transformer
from dst_t5x.recipes import gin_flags, recipe
from tests.t5x import runs


@pytest.fixture(scope='module')
def logged(once, tune):
  """A run of six steps, each of them saved and logged."""

  def build(folder):
    line = tune(folder / 'run', FINETUNE_STEPS=6, CHECKPOINT_PERIOD=1, KEEP=100)
    runs.run(line, folder).must_succeed()

  return once('logged', build) / 'run'


def changed_in(checkpoint):
  """The positions of a checkpoint, silo by silo, entry by entry."""
  found = runs.arrays(checkpoint)
  result = set()
  for path, counts in found.items():
    if path.startswith('state/counts/'):
      name = path.rpartition('/')[2]
      positions = found[f'state/positions/{name}']
      owner = np.repeat(np.arange(len(counts)), counts)
      result |= {
        (name, int(o), int(p))
        for o, p in zip(owner, positions[: counts.sum()], strict=True)
      }
  return result


def test_every_step_and_equal_to_the_checkpoints(logged):
  found = runs.scalars(logged / 'train')
  steps = list(range(1001, 1007))
  subsets = {
    step: changed_in(logged / f'checkpoint_{step}') for step in (1000, *steps)
  }
  assert not subsets[1000]
  for name in ('size', 'fraction', 'churn', 'passes', 'overlap_first'):
    assert sorted(found[f'subset/{name}']) == steps, name
  for step in steps:
    now, before = subsets[step], subsets[step - 1]
    assert found['subset/size'][step] == len(now) == 5178
    assert found['subset/fraction'][step] == pytest.approx(5178 / 517760)
    assert found['subset/churn'][step] == len(now - before)
    assert found['subset/overlap_first'][step] == pytest.approx(
      len(now & subsets[1001]) / len(subsets[1001])
    )
    shares = [
      values[step]
      for name, values in found.items()
      if name.startswith('subset_share/')
    ]
    assert sum(shares) == pytest.approx(1.0)
    in_mlp = sum(
      name.endswith('.mlp') and 'encoder' in name for name, *_ in now
    )
    assert found['subset_share/encoder/mlp'][step] == pytest.approx(
      in_mlp / len(now)
    )
  assert found['subset/overlap_first'][1006] < 1.0
  thresholds = [n for n in found if n.startswith('subset_threshold/')]
  last = runs.arrays(logged / 'checkpoint_1006')['state/metrics/threshold']
  assert sorted(found[n][1006] for n in thresholds) == pytest.approx(
    sorted(last.tolist()), rel=1e-6
  )


def test_modules_join_the_layers():
  shapes = {
    'decoder/decoder_norm/scale': (4,),
    'decoder/layers_0/mlp/wi/kernel': (4, 4),
    'decoder/layers_1/mlp/wi/kernel': (4, 4),
    'encoder/layers/mlp/wi/kernel': (4, 2, 4),
  }
  partition = silos.assign(
    shapes, stack_axes={'encoder/layers/mlp/wi/kernel': 1}
  )
  assert subset_metrics.modules(partition) == {
    'decoder/decoder_norm': [0],
    'decoder/mlp': [1, 2],
    'encoder/mlp': [3, 4],
  }


def test_of_a_model_with_more_parameters_than_int32_counts():
  read = recipe.read(
    gin_flags.parse(['--gin_file=models/t5_1_1_xxl.gin', '--gin.EPSILON=1e-6'])
  )
  seed = transformer.param_shapes(read.network)
  plan = plans.make(methods.dst(), seed, epsilon=1e-6)
  assert plan.total > 2**32

  def step(params, seed):
    state = selective.init(plan, seed, ())
    propose = lambda grads, inner, params: (grads, inner)  # noqa: E731
    new, state = selective.step(plan, propose, params, state, params)
    first = {path: x != seed[path] for path, x in new.items()}
    return {
      **subset_metrics.subset_values(plan, state.metrics),
      **subset_metrics.moves(plan, params, new, seed, first),
    }

  found = jax.eval_shape(step, seed, seed)
  assert {'subset/fraction', 'subset/overlap_first'} <= found.keys()
  assert {(x.shape, x.dtype.name) for x in found.values()} == {((), 'float32')}
