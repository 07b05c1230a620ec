"""`dst-t5x plan` against T5X itself, and compiled for a TPU topology."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
import seqio
from t5x import adafactor, models, utils  # type: ignore
from t5x.examples.t5 import network  # type: ignore

from dst_t5x.arrays.paths import named_leaves
from dst_t5x.core import methods
from dst_t5x.hooks import axes as axes_lib
from dst_t5x.hooks import optimizer, partitioning
from dst_t5x.planning import parameter_bytes, recipe_plan, slices, tpu_compiler
from dst_t5x.recipes import gin_flags, recipe
from tests.t5x import libtpu

BATCH = (
  'encoder_input_tokens',
  'decoder_target_tokens',
  'decoder_input_tokens',
  'decoder_loss_weights',
)


@pytest.mark.parametrize('parts', [1, 4])
def test_counts_what_t5x_keeps(parts):
  arguments = [
    '--gin_file=models/byte_tiny.gin',
    '--gin.EPSILON=0.01',
    '--gin.TRACK_OVERLAP=True',
    f'--gin.NUM_PARTITIONS={parts}',
  ]
  read = recipe.read(gin_flags.parse(arguments))
  # Wide enough for some parameters to be factored, and some not.
  read = read._replace(
    network=dataclasses.replace(read.network, emb_dim=256, mlp_dim=256)
  )
  counted = recipe_plan.of(read, slices.parse('v5e-8'))
  fields = read.network.to_dict()
  fields['mlp_activations'] = tuple(fields['mlp_activations'])
  vocabulary = seqio.PassThroughVocabulary(fields['vocab_size'], eos_id=1)
  definition = optimizer.Selective(
    adafactor.Adafactor(
      decay_rate=0.8,
      step_offset=0,
      logical_factor_rules=adafactor.standard_logical_factor_rules(),
    ),
    methods.dst(),
    epsilon=0.01,
    keep_first=True,
  )
  model = models.EncoderDecoderModel(
    module=network.Transformer(network.T5Config(**fields)),
    input_vocabulary=vocabulary,
    output_vocabulary=vocabulary,
    optimizer_def=definition,
  )
  initializer = utils.TrainStateInitializer(
    definition,
    model.get_initial_variables,
    dict.fromkeys(BATCH, (16, 32)),
    partitioning.Partitioner(num_partitions=parts),
    dict.fromkeys(BATCH, jnp.int32),
  )
  shapes, axes = (
    initializer.global_train_state_shape,
    initializer.train_state_axes,
  )
  specs = axes_lib.named(axes.params)
  for path, spec in specs.items():
    split = [i for i, axis in enumerate(spec or ()) if axis == 'model']
    known = parameter_bytes.split_axis(path)
    assert split == ([] if known is None else [known]), path

  def local(shapes, axes):
    leaves = jax.tree.leaves(
      axes,
      is_leaf=lambda x: x is None or isinstance(x, jax.sharding.PartitionSpec),
    )
    return sum(
      math.prod(leaf.shape)
      * leaf.dtype.itemsize
      // (parts if spec and 'model' in spec else 1)
      for leaf, spec in zip(jax.tree.leaves(shapes), leaves, strict=True)
    )

  states, state_axes = (
    tree._optimizer.state.param_states for tree in (shapes, axes)
  )
  kept, kept_axes = states['selective'], state_axes['selective']
  assert counted.parameters == local(shapes.params, axes.params)
  assert counted.seed == local(kept.seed, kept_axes.seed)
  assert counted.inner_state == local(kept.inner, kept_axes.inner)
  assert counted.subset_state == local(states['first'], state_axes['first'])
  assert counted.budget == definition.plan(shapes.params).budget
  assert counted.total == sum(
    x.size for x in named_leaves(shapes.params).values()
  )


@libtpu.needed
def test_compiles_the_recipe_for_a_slice(tmp_path):
  line = [
    sys.executable,
    '-m',
    'dst_t5x.commands.cli',
    'plan',
    '--topology=v5e:4x4',
    '--model=byte_tiny',
    '--epsilon=0.01',
    '--num-partitions=4',
    '--json',
    '--gin_file=tasks/number_words.gin',
    '--gin.NUM_ENCODER_LAYERS=1',
    '--gin.NUM_DECODER_LAYERS=1',
  ]
  done = subprocess.run(
    line,
    cwd=tmp_path,
    # It finds libtpu by itself, as it would for a user.
    env={**os.environ, 'DST_T5X_LIBTPU': libtpu.FOLDER or ''},
    capture_output=True,
    text=True,
    timeout=900,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  found = json.loads(done.stdout)
  counted, compiled = found['counted'], found['compiled']
  assert found['not_compiled_because'] is None
  assert counted['mesh'] == {'data': 4, 'model': 4}
  assert compiled['fits']
  assert found['fits']
  compiler = tpu_compiler.find()
  assert compiler is not None
  assert compiled['versions']['libtpu'] == compiler.version
  # What is kept is handed to the step, and the batch; TPUs pad it.
  kept = counted['bytes_per_device']
  least = sum(
    kept[name] for name in ('parameters', 'seed', 'inner_state', 'subset_state')
  )
  arguments = compiled['bytes_per_device']['arguments']
  assert least <= arguments <= 2.5 * least
  full = compiled['full']
  assert full['fits']
  assert (
    arguments - full['bytes_per_device']['arguments']
    >= kept['seed'] + kept['subset_state']
  )
  # The threshold search's loop, and the count of metrics, which XLA may put
  # into one with T5X's own.
  added = compiled['share']['collectives']
  assert {k: n for k, n in added.items() if k != 'all-reduce'} == {
    k: 0 for k in added if k != 'all-reduce'
  }
  assert 1 <= added['all-reduce'] <= 2
  assert 0 < compiled['share']['operations'] < 0.5
  assert 0 < compiled['share']['collective_bytes'] < 100_000
