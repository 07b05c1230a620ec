"""The optimizer hook around T5X's optimizers and optax's, in this process."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import seqio
from flax import traverse_util
from flax.core import unfreeze
from jax.sharding import PartitionSpec as P
from t5x import adafactor, models, optimizers, trainer, utils  # type: ignore
from t5x.examples.t5 import network  # type: ignore

from dst_t5x.arrays.paths import named_leaves
from dst_t5x.core import methods, optax_api
from dst_t5x.core.counting import Partitioning
from dst_t5x.hooks import axes as axes_lib
from dst_t5x.hooks import inner, partitioning
from dst_t5x.hooks.optimizer import Selective
from tests import checks

SHAPES = {'a': {'kernel': (6, 8)}, 'b': {'kernel': (8, 4), 'scale': (8,)}}
AXES = {
  'a': {'kernel': P('embed', 'mlp')},
  'b': {'kernel': P('mlp', 'kv'), 'scale': P('mlp')},
}


def is_shape(x: Any) -> bool:
  return isinstance(x, tuple)


def drawn(seed: int) -> Any:
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda s: jnp.asarray(rng.normal(size=s), jnp.float32),
    SHAPES,
    is_leaf=is_shape,
  )


def t5x_adafactor() -> Any:
  return adafactor.Adafactor(
    decay_rate=0.8,
    step_offset=0,
    min_dim_size_to_factor=4,
    logical_factor_rules=adafactor.standard_logical_factor_rules(),
  )


def multi() -> Any:
  kernels = traverse_util.ModelParamTraversal(lambda p, _: 'kernel' in p)
  others = traverse_util.ModelParamTraversal(lambda p, _: 'kernel' not in p)
  return optimizers.MultiOptimizer(
    ((kernels, t5x_adafactor()), (others, t5x_adafactor()))
  )


INNER = {
  'adafactor': t5x_adafactor,
  'multi': multi,
  'optax': lambda: inner.Optax(
    functools.partial(optax.adamw, weight_decay=0.1)
  ),
  'wrapped': lambda: optimizers.adam(1e-2),
  'momentum': lambda: inner.Optax(functools.partial(optax.sgd, momentum=0.9)),
}


# Compiled: one by one, the operations of a step take a hundred times as long.
STEP = jax.jit(lambda o, g, rate: o.apply_gradient(g, learning_rate=rate))


def ready(definition: Selective, params: Any) -> Any:
  """An optimizer as T5X makes one, on one device."""
  definition.set_param_axes(AXES)
  mesh = partitioning.cpu_mesh(1)
  definition.set_partitioning(
    Partitioning(mesh, {p: P() for p in named_leaves(params)})
  )
  return definition.create(params)


@pytest.mark.parametrize('name', INNER)
def test_keeps_to_the_budget(name):
  seed = drawn(0)
  optimizer = ready(Selective(INNER[name](), methods.dst(), epsilon=0.1), seed)
  for number in range(1, 5):
    optimizer = STEP(optimizer, drawn(number), 0.05)
  silos = {p: p.rpartition('/')[0] for p in checks.flat(seed)}
  checks.budget_used(
    seed, optimizer.target, silos, {'a': 5, 'b': 4}
  )  # 0.1 · (48 + 40), by largest remainder
  assert int(optimizer.state.step) == 4


@pytest.mark.parametrize('name', INNER)
def test_axes_and_state_dict(name):
  optimizer = ready(
    Selective(INNER[name](), methods.dst(), epsilon=0.1, keep_first=True),
    drawn(0),
  )
  logical = optimizer.optimizer_def.derive_logical_axes(optimizer, AXES)
  kept = logical.state.param_states['selective']
  assert axes_lib.named(kept.seed) == axes_lib.named(AXES)
  first = logical.state.param_states['first']
  assert first['a/kernel'] == P('embed', 'mlp')
  assert kept.carry is None
  # What T5X does to get the mesh axes: out as a dict, and back.
  nested = logical.state_dict()
  again = logical.restore_state(nested)
  assert jax.tree.structure(again) == jax.tree.structure(logical)
  whole = optimizer.restore_state(optimizer.state_dict())
  jax.tree.map(np.testing.assert_array_equal, whole, optimizer)
  inner_axes = jax.tree.leaves(kept.inner)
  if name in ('optax', 'wrapped', 'momentum'):
    assert sum(isinstance(x, P) for x in inner_axes) >= 3


def test_learning_rate_of_the_trainer_is_used():
  seed, gradient = drawn(0), drawn(1)
  moved = {}
  for rate in (0.0, 0.1, 0.2):
    optimizer = ready(
      Selective(inner.Optax(optax.sgd), methods.dst(), epsilon=1.0), seed
    )
    new = STEP(optimizer, gradient, rate).target
    moved[rate] = np.asarray(new['a']['kernel'] - seed['a']['kernel'])
  assert not moved[0.0].any()
  expected = -0.1 * np.asarray(gradient['a']['kernel'])
  np.testing.assert_allclose(moved[0.1], expected, atol=1e-6)
  np.testing.assert_allclose(moved[0.2], 2 * expected, atol=1e-6)


def test_own_steps_not_those_of_the_pretraining():
  """Adafactor at step 10⁶ would never fill its empty state."""
  seed = drawn(0)
  results = []
  for start in (0, 10**6):
    optimizer = ready(
      Selective(t5x_adafactor(), methods.dst(), epsilon=0.1), seed
    )
    state = optimizer.state.replace(step=jnp.int32(start))
    optimizer = optimizer.replace(state=state)
    for number in range(1, 4):
      optimizer = STEP(optimizer, drawn(number), 0.05)
    results.append(optimizer.target)
    assert int(optimizer.state.step) == start + 3
  checks.same_bits(unfreeze(results[0]), results[1])


def test_both_hosts_take_the_same_steps():
  """50 steps of the T5X hook and of the optax API, bit for bit."""
  seed = drawn(0)
  rate = 0.01
  hook = ready(
    Selective(inner.Optax(optax.adamw), methods.dst(), epsilon=0.1), seed
  )
  transformation = optax_api.selective_tuning(
    optax.inject_hyperparams(lambda learning_rate: optax.adamw(learning_rate))(
      learning_rate=rate
    ),
    methods.dst(),
    epsilon=0.1,
  )
  params, state = seed, transformation.init(seed)

  @jax.jit
  def own_step(params, state, gradient):
    updates, state = transformation.update(gradient, state, params)
    return optax.apply_updates(params, updates), state

  for number in range(1, 51):
    gradient = drawn(number)
    hook = STEP(hook, gradient, rate)
    params, state = own_step(params, state, gradient)
    checks.same_bits(params, hook.target)


@pytest.mark.parametrize(
  ('make', 'words'),
  [
    (lambda: Selective(optax.adam(0.1), methods.dst()), 'inner.Optax'),
    (
      lambda: Selective(adafactor.Adafactor(step_offset=1000), methods.dst()),
      'step_offset=1000',
    ),
    (lambda: Selective(t5x_adafactor(), 'dst'), 'methods/dst.gin'),
    (lambda: inner.Optax(optax.adam(0.1)), 'without parentheses'),
  ],
)
def test_what_cannot_be_wrapped(make, words):
  with pytest.raises(ValueError, match=words):
    make()


def test_without_a_seed_no_step():
  definition = Selective(t5x_adafactor(), methods.dst(), epsilon=0.1)
  definition.set_param_axes(AXES)
  optimizer = definition.create(drawn(0))
  with pytest.raises(ValueError, match='TrainInitializer'):
    optimizer.apply_gradient(drawn(1), learning_rate=0.1)


def tiny_model(definition: Any) -> Any:
  vocabulary = seqio.ByteVocabulary(extra_ids=0)
  config = network.T5Config(
    vocab_size=264,
    dtype='float32',
    emb_dim=16,
    num_heads=8,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=4,
    mlp_dim=16,
    mlp_activations=('gelu', 'linear'),
    dropout_rate=0.0,
  )
  return models.EncoderDecoderModel(
    module=network.Transformer(config),
    input_vocabulary=vocabulary,
    output_vocabulary=vocabulary,
    optimizer_def=definition,
    loss_normalizing_factor=128,  # fixed, so that halves add up
  )


def test_microbatches_are_one_step():
  """Two halves of a batch, accumulated by T5X, are one step of the method."""
  rng = np.random.default_rng(0)
  tokens = {
    name: jnp.asarray(rng.integers(3, 259, (16, 8)), jnp.int32)
    for name in ('encoder_input_tokens', 'decoder_target_tokens')
  }
  batch = {
    **tokens,
    'decoder_input_tokens': jnp.roll(tokens['decoder_target_tokens'], 1, 1),
    'decoder_loss_weights': jnp.ones((16, 8), jnp.int32),
  }
  states = []
  for microbatches in (None, 2):
    definition = Selective(inner.Optax(optax.sgd), methods.dst(), epsilon=0.01)
    model = tiny_model(definition)
    parts = partitioning.Partitioner(num_partitions=8)
    initializer = utils.TrainStateInitializer(
      definition,
      model.get_initial_variables,
      {name: x.shape for name, x in batch.items()},
      parts,
      {name: x.dtype for name, x in batch.items()},
    )
    specs = axes_lib.named(initializer.train_state_axes.params)
    definition.set_partitioning(Partitioning(parts.mesh, specs))
    state = initializer.from_scratch(jax.random.PRNGKey(0))
    axes = initializer.train_state_axes

    def step(state, batch, model=model, microbatches=microbatches):
      return trainer.train_with_lr(
        state,
        batch,
        jnp.float32(0.1),
        jax.random.PRNGKey(0),
        model,
        microbatches,
      )[0]

    run = parts.partition(
      step,
      in_axis_resources=(axes, P('data')),
      out_axis_resources=axes,
    )
    states.append((state, run(state, batch)))
  (seed, whole), (_, halves) = states
  assert int(halves.param_states['selective'].count) == 1
  changed = checks.changed(
    jax.device_get(seed.params), jax.device_get(halves.params)
  )
  total = sum(x.size for x in jax.tree.leaves(seed.params))
  assert sum(int(x.sum()) for x in changed.values()) <= round(0.01 * total)
  for a, b in zip(
    jax.tree.leaves(whole.params), jax.tree.leaves(halves.params), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-5)
