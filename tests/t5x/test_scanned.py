"""A scanned stack gets one silo for every layer's slice."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.linen import partitioning as flax_partitioning
from jax.sharding import PartitionSpec as P
from t5x import utils  # type: ignore

from dst_t5x.arrays.paths import named_leaves
from dst_t5x.checkpoint import packing, unpacking
from dst_t5x.core import methods
from dst_t5x.core.counting import Partitioning
from dst_t5x.hooks import axes as axes_lib
from dst_t5x.hooks import inner, partitioning
from dst_t5x.hooks.optimizer import Selective
from tests import checks

LAYERS, WIDTH = 3, 16


class Layer(nn.Module):
  """A layer with T5X's logical axes."""

  @nn.compact
  def __call__(self, x: Any, _: Any) -> Any:
    kernel = flax_partitioning.param_with_axes(
      'kernel',
      nn.initializers.normal(1.0),
      (WIDTH, WIDTH),
      jnp.float32,
      axes=('embed', 'mlp'),
    )
    return jnp.tanh(x @ kernel), None


class Stack(nn.Module):
  """Layers scanned into one tensor, as T5X's scanned models do it."""

  scan_axis: int = 1

  @nn.compact
  def __call__(self, x: Any) -> Any:
    scanned = flax_partitioning.scan_with_axes(
      Layer,
      variable_axes={'params': self.scan_axis},
      split_rngs={'params': True},
      length=LAYERS,
      in_axes=nn.broadcast,
      axis_name='layers',
      axes_collections=('params',),
    )
    x, _ = scanned(name='layers')(x, None)
    scale = flax_partitioning.param_with_axes(
      'scale', nn.initializers.ones, (WIDTH,), jnp.float32, axes=('embed',)
    )
    return x * scale


class Model:
  """As much of a T5X model as the initializer asks for."""

  def __init__(self, module: Stack):
    self.module = module

  def get_initial_variables(
    self, rng: Any, input_shapes: Any, input_types: Any = None
  ) -> Any:
    return self.module.init(rng, jnp.ones(input_shapes['x']))


@pytest.mark.parametrize('scan_axis', [0, 1, 2])
@pytest.mark.parametrize('partitions', [1, 4])
def test_one_silo_a_layer(scan_axis, partitions):
  definition = Selective(inner.Optax(optax.sgd), methods.dst(), epsilon=0.05)
  model = Model(Stack(scan_axis))
  parts = partitioning.Partitioner(num_partitions=partitions)
  initializer = utils.TrainStateInitializer(
    definition, model.get_initial_variables, {'x': (8, WIDTH)}, parts
  )
  axes = initializer.train_state_axes
  specs = {
    path: P() if spec is None else spec
    for path, spec in axes_lib.named(axes.params).items()
  }
  assert specs['layers/kernel'][scan_axis:][:1] in ((), (None,))
  definition.set_partitioning(Partitioning(parts.mesh, specs))
  plan = definition.plan(initializer.global_train_state_shape.params)
  assert plan.silos.names == (
    'layers_0',
    'layers_1',
    'layers_2',
    'scale',
  )
  # 39 of 3 · 256 + 16, by largest remainder.
  assert plan.budgets == (13, 13, 12, 1)

  state = initializer.from_scratch(jax.random.PRNGKey(0))
  rng = np.random.default_rng(0)
  shapes = {p: x.shape for p, x in named_leaves(state.params).items()}
  gradients = jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), state.params
  )
  step = parts.partition(
    lambda s, g: s.apply_gradient(g, learning_rate=0.1),
    in_axis_resources=(axes, axes.params),
    out_axis_resources=axes,
  )
  after = step(step(state, gradients), gradients)
  changed = checks.changed(
    jax.device_get(state.params), jax.device_get(after.params)
  )
  kernel = np.moveaxis(changed['layers/kernel'], scan_axis, 0)
  assert kernel.shape == (LAYERS, WIDTH, WIDTH)
  budgets = dict(zip(plan.silos.names, plan.budgets, strict=True))
  for layer in range(LAYERS):
    assert kernel[layer].sum() == budgets[f'layers_{layer}']
  assert changed['scale'].sum() == budgets['scale']

  # And back and forth through a checkpoint's arrays.
  kept = after.param_states['selective']
  now, seed = named_leaves(after.params), kept.seed
  placed = Partitioning(parts.mesh, specs)
  packed = packing.pack(plan.silos, plan.budgets, placed, now, seed)
  again = unpacking.unpack(plan.silos, placed, packed, seed)
  for path in shapes:
    np.testing.assert_array_equal(again[path], now[path], path)
