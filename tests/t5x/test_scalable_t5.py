"""T5X's own networks, scanned and not, have the silos of T5."""

import collections
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from click.testing import CliRunner
from flax.linen import partitioning as flax_partitioning
from jax.sharding import PartitionSpec as P
from t5x.examples.decoder_only import network as decoder_only  # type: ignore
from t5x.examples.scalable_t5 import network as scalable_t5  # type: ignore
from t5x.examples.t5 import network as t5  # type: ignore

from dst_t5x import delta
from dst_t5x.arrays.paths import named_leaves, unflatten
from dst_t5x.commands import cli
from dst_t5x.core import methods, plans, unknown_layers
from dst_t5x.core.counting import Partitioning
from dst_t5x.hooks import axes as axes_lib
from dst_t5x.hooks import inner, partitioning, subset_metrics
from dst_t5x.hooks.optimizer import Selective
from dst_t5x.seeds import conversion
from tests import checks
from tests.t5x import runs

SIZES = {
  'vocab_size': 32,
  'emb_dim': 8,
  'num_heads': 2,
  'head_dim': 4,
  'mlp_dim': 12,
  'mlp_activations': ('gelu', 'linear'),
}
TOKENS = jnp.ones((1, 4), jnp.int32)
SCHEMES = ('none', 'module', 'module_and_layer', 'tensor')


@functools.cache
def initial(network: str, **config: Any) -> tuple[dict[str, Any], Any]:
  """Shapes by path and logical axes, as T5X gets them from a network."""
  if network == 'decoder_only':
    module = decoder_only.DecoderWrapper(
      decoder_only.TransformerConfig(**SIZES, **config)
    )
    tokens = (TOKENS, TOKENS)
  else:
    of = {'t5': t5, 'scalable_t5': scalable_t5}[network]
    module = of.Transformer(of.T5Config(**{**SIZES, **config}))
    tokens = (TOKENS, TOKENS, TOKENS)
  init = functools.partial(module.init, enable_dropout=False)
  made = jax.eval_shape(init, jax.random.key(0), *tokens)
  axes = flax_partitioning.get_axis_names(made['params_axes'])
  return named_leaves(made['params']), axes


def selective(axes: Any, **settings: Any) -> Selective:
  settings = {'epsilon': 0.1, **settings}
  method = settings.pop('method', methods.dst())
  definition = Selective(inner.Optax(optax.sgd), method, **settings)
  definition.set_param_axes(axes)
  return definition


def plan_of(network: str, scheme: str, epsilon: float, **config: Any) -> Any:
  shapes, axes = initial(network, **config)
  definition = selective(axes, epsilon=epsilon, silos=scheme)
  return definition.plan(unflatten(shapes))


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize(
  'layers',
  [
    {'num_encoder_layers': 11, 'num_decoder_layers': 2},
    # mT5
    {'num_encoder_layers': 3, 'num_decoder_layers': 3, 'vocab_size': 250112},
  ],
)  # fmt: skip
def test_the_scan_changes_neither_silos_nor_budgets(scheme, layers):
  for epsilon in (0.3, 0.02, 1e-3):
    plain, scanned = (
      plan_of('scalable_t5', scheme, epsilon, scan_layers=scan, **layers)
      for scan in (False, True)
    )
    assert scanned.silos.names == plain.silos.names
    assert scanned.silos.sizes == plain.silos.sizes
    assert scanned.budgets == plain.budgets
  if scheme == 'module_and_layer' and layers['num_decoder_layers'] == 3:
    assert len(scanned.silos.names) == 3 * 5 + 3 * 7 + 4
  if scheme == 'module_and_layer':
    modules = subset_metrics.modules(scanned.silos)
    assert {len(modules['encoder/mlp']), len(modules['decoder/mlp'])} == {
      layers['num_encoder_layers'],
      layers['num_decoder_layers'],
    }
    assert len(modules) == len(
      plan_of('scalable_t5', 'module', 0.1, **layers).silos.names
    )


LONG_T5 = """
  encoder/side_relpos_bias/rel_embedding
  encoder/layers_0/attention/global_input_layer_norm/scale
  encoder/layers_1/attention/global_input_layer_norm/scale
"""


@pytest.mark.parametrize(
  'network, config, more, module',
  [
    ('t5', {'num_encoder_layers': 2, 'num_decoder_layers': 2}, '',
     'encoder/mlp'),
    ('t5', {'num_encoder_layers': 2, 'num_decoder_layers': 2}, LONG_T5,
     'encoder/side_relpos_bias'),
    ('decoder_only', {'num_layers': 2}, '', 'decoder/self_attention'),
    ('scalable_t5', {'num_encoder_layers': 2, 'num_decoder_layers': 2}, '',
     'decoder/encoder_decoder_attention'),
  ],
)  # fmt: skip
def test_no_network_of_t5x_is_refused_or_doubted(network, config, more, module):
  shapes, axes = initial(network, **config)
  shapes = shapes | {
    path: jax.ShapeDtypeStruct((8,), jnp.float32) for path in more.split()
  }
  for scheme in ('module', 'module_and_layer'):
    plan = plans.make(
      methods.dst(silo_scheme=scheme),
      unflatten(shapes),
      epsilon=0.1,
      stack_axes=axes_lib.stacks(axes_lib.named(axes)),
    )
    names = [path for path in shapes if 'encoder/encoder' not in path]
    names = [path for path in names if 'decoder/decoder' not in path]
    assert unknown_layers.problem(scheme, names) == ''
    assert unknown_layers.doubt(scheme, names) == ''
    assert module in subset_metrics.modules(plan.silos)
  if more:  # part of the layer's attention
    place = plan.silos.placements['encoder/layers_1/attention/query/kernel']
    for path in more.split()[1:]:
      assert (
        plan.silos.names[plan.silos.placements[path].silos[0]]
        == (path.partition('/global')[0])
      )
    assert plan.silos.names[place.silos[0]] == 'encoder/layers_1/attention'


def stacked(plain: Any, like: Any) -> dict[str, np.ndarray]:
  """The tree of a scanned network, from that of the same without the scan."""
  scanned = {}
  for path, leaf in like.items():
    stack, second, *rest = path.split('/')
    if stack != second:
      scanned[path] = plain[path]
      continue
    slices = [
      plain['/'.join((stack, f'layers_{i}', *rest))]
      for i in range(leaf.shape[1])
    ]
    scanned[path] = np.stack(slices, axis=1)
  return scanned


def without_decoder(shapes: Any, axes: Any) -> tuple[Any, Any]:
  """Less to compile."""
  kept = {p: x for p, x in shapes.items() if not p.startswith('decoder/')}
  return kept, {key: axes[key] for key in axes if key != 'decoder'}


def test_two_steps_choose_the_same_parameters():
  """Positions and values, tensor by tensor, as NumPy compares them."""
  layers = {'num_encoder_layers': 2, 'num_decoder_layers': 1}
  (shapes, axes), (like, scanned_axes) = (
    without_decoder(*initial('scalable_t5', scan_layers=scan, **layers))
    for scan in (False, True)
  )
  rng = np.random.default_rng(0)
  seed, *gradients = (
    {p: rng.normal(size=x.shape).astype(np.float32) for p, x in shapes.items()}
    for _ in range(3)
  )
  step = jax.jit(lambda o, g: o.apply_gradient(g, learning_rate=0.1))
  results = []
  for convert, logical in (
    (lambda tree: tree, axes),
    (lambda tree: stacked(tree, like), scanned_axes),
  ):
    definition = selective(logical)
    params = jax.tree.map(jnp.asarray, unflatten(convert(seed)))
    specs = dict.fromkeys(named_leaves(params), P())
    definition.set_partitioning(Partitioning(partitioning.cpu_mesh(1), specs))
    optimizer = definition.create(params)
    for gradient in gradients:
      optimizer = step(optimizer, unflatten(convert(gradient)))
    results.append(optimizer.target)
  plain, scanned = results
  checks.same_bits(checks.flat(scanned), stacked(checks.flat(plain), like))
  moved = checks.changed(unflatten(seed), plain)
  total = sum(x.size for x in moved.values())
  assert sum(int(x.sum()) for x in moved.values()) == round(0.1 * total)


GIN = """
from __gin__ import dynamic_registration
from t5x import models
from t5x.examples.scalable_t5 import network as scalable_t5

models.EncoderDecoderModel.module = @scalable_t5.Transformer()
scalable_t5.Transformer.config = @scalable_t5.T5Config()
scalable_t5.T5Config:
  vocab_size = %VOCAB_SIZE
  emb_dim = %EMB_DIM
  num_heads = %NUM_HEADS
  num_encoder_layers = %NUM_ENCODER_LAYERS
  num_decoder_layers = %NUM_DECODER_LAYERS
  head_dim = %HEAD_DIM
  mlp_dim = %MLP_DIM
  mlp_activations = %MLP_ACTIVATIONS
  dropout_rate = %DROPOUT_RATE
  logits_via_embedding = %LOGITS_VIA_EMBEDDING
  scan_layers = True
"""


@pytest.mark.parametrize(
  'stops', [(2,), pytest.param((2, 4), marks=pytest.mark.slow)]
)
def test_a_run_of_stock_t5x(tune, tmp_path, stops):
  """Two steps, a resume, and the checkpoint merged, judged from outside."""
  config = {
    'num_encoder_layers': 3,
    'num_decoder_layers': 3,
    'vocab_size': 384,
  }
  shapes, _ = initial('scalable_t5', **config)
  rng = np.random.default_rng(0)
  seed = {
    p: rng.normal(0.05, size=x.shape).astype(np.float32)
    for p, x in shapes.items()
  }
  conversion.write('orbax', unflatten(seed), tmp_path / 'seed', step=1000)
  (tmp_path / 'scalable.gin').write_text(GIN)
  names = {name.upper(): value for name, value in {**SIZES, **config}.items()}
  log = ''
  for steps in stops:
    line = tune(
      tmp_path / 'run',
      INITIAL_CHECKPOINT_PATH=str(tmp_path / 'seed/checkpoint_1000'),
      FINETUNE_STEPS=steps,
      CHECKPOINT_PERIOD=2,
      TASK_FEATURE_LENGTHS={'inputs': 16, 'targets': 16},
      **names,
    )
    line.append(f'--gin_file={tmp_path / "scalable.gin"}')
    log = runs.run(line, tmp_path).must_succeed().log
  resumed = 'Resuming DST after 2 of its own steps' in log
  assert resumed == (len(stops) == 2)

  # The command line makes a file and a whole model of it; NumPy counts.
  last = f'checkpoint_{1000 + stops[-1]}'
  checkpoint = tmp_path / 'run' / last
  for words in (
    ['export', str(checkpoint), str(tmp_path / 'delta.safetensors')],
    ['merge', str(checkpoint), str(tmp_path), '--to', 'orbax'],
  ):
    result = CliRunner().invoke(cli.main, ['delta', *words])
    assert result.exit_code == 0, result.output
  merged = {
    path.removeprefix('target/'): x
    for path, x in runs.arrays(tmp_path / last).items()
    if path.startswith('target/')
  }
  moved = checks.changed(unflatten(seed), unflatten(merged))
  counts: collections.Counter[str] = collections.Counter()
  for path, where in moved.items():
    stack, second, *rest = path.split('/')
    if stack != second:
      counts['/'.join((stack, second, *rest)[:-1])] += int(where.sum())
      continue
    for i, number in enumerate(np.moveaxis(where, 1, 0).reshape(3, -1)):
      counts[f'{stack}/layers_{i}/{rest[0]}'] += int(number.sum())
  manifest = json.loads(runs.arrays(checkpoint)['state/manifest'].tobytes())
  budgets = {name: k for name, k, _ in manifest['silos']}
  assert len(budgets) == 40
  assert sum(budgets.values()) == round(
    0.01 * sum(x.size for x in seed.values())
  )
  assert +counts == +collections.Counter(budgets)
  applied = delta.apply(
    unflatten(seed), delta.read(tmp_path / 'delta.safetensors')
  )
  checks.same_bits(checks.flat(applied), merged)
