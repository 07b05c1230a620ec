"""The subset's metrics, as they lie in TensorBoard's files."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from t5x import adafactor  # type: ignore

from dst_t5x import seeds
from dst_t5x.arrays import paths
from dst_t5x.core import methods, plans, selective, silos
from dst_t5x.core.counting import Partitioning
from dst_t5x.hooks import optimizer, subset_metrics
from dst_t5x.network import transformer
from dst_t5x.recipes import gin_flags, recipe
from tests.t5x import runs


@pytest.fixture(scope='module')
def logged(once, tune):
  """A run of six steps, each of them saved and logged."""

  def build(folder):
    line = tune(
      folder / 'run',
      FINETUNE_STEPS=6,
      CHECKPOINT_PERIOD=1,
      KEEP=100,
      TRACK_OVERLAP=True,
      SILO_METRICS=True,
    )
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


def distance(checkpoint, seed):
  """‖Θ − Θ⁰‖, from the values of a checkpoint and the seed's."""
  found, squares = runs.arrays(checkpoint), 0.0
  manifest = json.loads(found['state/manifest'].tobytes())
  for name, _, parts in manifest['silos']:
    key = name.replace('/', '.')
    if f'state/counts/{key}' not in found:
      continue
    start = 0
    for (path, _, _), count in zip(
      parts, found[f'state/counts/{key}'], strict=True
    ):
      own = slice(start, start + count)
      start += count
      at = found[f'state/positions/{key}'][own]
      there = seed[path].reshape(-1)[at].astype(np.float64)
      squares += np.sum((found[f'target/{key}'][own] - there) ** 2)
  return np.sqrt(squares)


def test_every_step_and_equal_to_the_checkpoints(logged):
  found = runs.scalars(logged / 'train')
  steps = list(range(1001, 1007))
  subsets = {
    step: changed_in(logged / f'checkpoint_{step}') for step in (1000, *steps)
  }
  assert not subsets[1000]
  names = ('size', 'fraction', 'churn', 'passes', 'overlap_first', 'distance')
  for name in names:
    assert sorted(found[f'subset/{name}']) == steps, name
  start = paths.named_leaves(seeds.read('bundled').params)
  for step in steps:
    assert found['subset/distance'][step] == pytest.approx(
      distance(logged / f'checkpoint_{step}', start), rel=1e-5
    )
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


SHAPES = {
  'decoder/scalar': (),
  'decoder/scale': (7,),
  'decoder/wi': (16, 24),
  'encoder/layers/wi': (8, 3, 16),
}
SPECS = {
  'decoder/scalar': P(),
  'decoder/scale': P(),
  'decoder/wi': P('model', 'data'),
  'encoder/layers/wi': P(None, None, 'model'),
}


def drawn():
  """Gradients, Θ before and after, Θ⁰ and S₁, as `moves` takes them."""
  rng = np.random.default_rng(0)
  seed = {p: rng.normal(size=s).astype('f4') for p, s in SHAPES.items()}

  def near():
    return {
      p: np.where(rng.random(x.shape) < 0.5, x, -x).astype('f4')
      for p, x in seed.items()
    }

  gradients = {p: rng.normal(size=s).astype('f4') for p, s in SHAPES.items()}
  first = {p: rng.random(s) < 0.5 for p, s in SHAPES.items()}
  return gradients, near(), near(), seed, first


def on_mesh(trees):
  mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ('data', 'model'))
  plan = plans.make(
    methods.dst(),
    {p: jax.ShapeDtypeStruct(s, 'float32') for p, s in SHAPES.items()},
    epsilon=0.5,
    partitioning=Partitioning(mesh, SPECS),
  )
  placed = [
    {p: jax.device_put(x, NamedSharding(mesh, SPECS[p])) for p, x in t.items()}
    for t in trees
  ]
  return plan, placed


def test_of_a_sharded_model_and_one_all_reduce():
  gradients, old, new, seed, first = trees = drawn()
  plan, placed = on_mesh(trees)
  program = jax.jit(lambda *trees: subset_metrics.moves(plan, *trees))
  text = program.lower(*placed).compile().as_text()
  assert text is not None
  assert len(re.findall(r' (all-[a-z]+|collective-[a-z]+)\(', text)) == 1
  found = {name: float(x) for name, x in program(*placed).items()}

  def total(count):
    return sum(float(np.sum(count(path))) for path in SHAPES)

  start = total(lambda p: first[p])
  both = total(lambda p: first[p] & (new[p] != seed[p]))
  assert found == {
    'gradient_norm': pytest.approx(
      np.sqrt(total(lambda p: np.float64(gradients[p]) ** 2)), rel=1e-6
    ),
    'subset/distance': pytest.approx(
      np.sqrt(total(lambda p: (np.float64(new[p]) - seed[p]) ** 2)), rel=1e-6
    ),
    'subset/churn': total(lambda p: (new[p] != seed[p]) & (old[p] == seed[p])),
    'subset/overlap_first': pytest.approx(both / start),
  }


def test_sums_lose_nothing_of_large_tensors():
  """Numbers of one size, added one by one in float32, stop counting at 2²⁴."""
  shape = (2**13, 2**12)
  plan = plans.make(
    methods.dst(), {'a': jax.ShapeDtypeStruct(shape, 'float32')}, epsilon=0.5
  )
  zeros, ones = jnp.zeros(shape), jnp.ones(shape)
  found = jax.jit(lambda *trees: subset_metrics.moves(plan, *trees))(
    {'a': ones}, {'a': zeros}, {'a': ones}, {'a': zeros}, {'a': ones == 1}
  )
  assert found['subset/churn'] == 2**25
  assert found['subset/overlap_first'] == 1
  norms = found['gradient_norm'], found['subset/distance']
  assert norms == (pytest.approx(2**12.5), pytest.approx(2**12.5))


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
      **subset_metrics.silo_values(plan, state.metrics),
      **subset_metrics.moves(plan, params, params, new, seed, first),
    }

  found = jax.eval_shape(step, seed, seed)
  assert {'subset/fraction', 'subset/overlap_first'} <= found.keys()
  assert {(x.shape, x.dtype.name) for x in found.values()} == {((), 'float32')}


@pytest.mark.parametrize(
  ('given', 'began_with', 'keeps'),
  [
    (None, False, False),
    (None, True, True),
    (True, False, True),
    # Refused later, by the manifest.
    (False, True, False),
  ],
)
def test_a_resume_keeps_what_the_run_began_with(given, began_with, keeps):
  definition = optimizer.Selective(
    adafactor.Adafactor(), methods.dst(), epsilon=0.1, keep_first=given
  )
  definition.follow(began_with)
  assert definition.keep_first == keeps
