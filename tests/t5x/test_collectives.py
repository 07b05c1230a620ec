"""One small all-reduce a threshold pass, in what the compilers make of it.

The whole train step of stock T5X is compiled for a mesh of data × model, with
the method and without: on virtual CPU devices, and for a real TPU topology
where libtpu is installed.
"""

import collections
import json
import re
import subprocess
import sys

import pytest

from tests.t5x import libtpu, runs

SCRIPT = """
import json, sys
import jax, jax.numpy as jnp, numpy as np, seqio
from jax.sharding import Mesh, PartitionSpec as P
from t5x import adafactor, models, partitioning, trainer, utils
from t5x.examples.t5 import network
from dst_t5x.core import methods
from dst_t5x.core.counting import Partitioning
from dst_t5x.hooks import axes as axes_lib
from dst_t5x.hooks import optimizer

topology, data, model, out = sys.argv[1:]
shape = int(data), int(model)
if topology == 'cpu':
  devices = jax.devices()
else:
  from jax.experimental import topologies
  devices = topologies.get_topology_desc(
    platform='tpu', topology_name=topology).devices
mesh = Mesh(np.array(devices).reshape(shape), ('data', 'model'))

class Partitioner(partitioning.PjitPartitioner):
  mesh = property(lambda self: mesh)

def compiled(method):
  rules = adafactor.standard_logical_factor_rules()
  definition = adafactor.Adafactor(
    decay_rate=0.8, step_offset=0, logical_factor_rules=rules)
  if method is not None:
    definition = optimizer.Selective(definition, method, epsilon=1e-3)
  vocabulary = seqio.ByteVocabulary(extra_ids=0)
  config = network.T5Config(
    vocab_size=384, dtype='bfloat16', emb_dim=256, num_heads=4,
    num_encoder_layers=2, num_decoder_layers=2, head_dim=32, mlp_dim=512,
    mlp_activations=('gelu', 'linear'), dropout_rate=0.0,
    logits_via_embedding=False)
  net = models.EncoderDecoderModel(
    module=network.Transformer(config), input_vocabulary=vocabulary,
    output_vocabulary=vocabulary, optimizer_def=definition)
  parts = Partitioner(num_partitions=1)
  names = ('encoder_input_tokens', 'decoder_target_tokens',
           'decoder_input_tokens', 'decoder_loss_weights')
  shapes = {name: (16, 64) for name in names}
  types = {name: jnp.int32 for name in names}
  initializer = utils.TrainStateInitializer(
    definition, net.get_initial_variables, shapes, parts, types)
  axes = initializer.train_state_axes
  if method is not None:
    specs = axes_lib.named(axes.params)
    definition.set_partitioning(Partitioning(mesh, specs))
  def step(state, batch):
    return trainer.train_with_lr(
      state, batch, jnp.float32(1e-3), jax.random.PRNGKey(0), net, None, None)
  batch = {n: jax.ShapeDtypeStruct(shapes[n], jnp.int32) for n in names}
  return parts.partition(
    step, in_axis_resources=(axes, P('data')), out_axis_resources=(axes, None),
    donate_argnums=(0,),
  ).lower(initializer.global_train_state_shape, batch).compile().as_text()

texts = {'full': compiled(None), 'dst': compiled(methods.dst())}
json.dump(texts, open(out, 'w'))
"""


def collectives(text):
  found = re.findall(
    r'= [^=]*? (all-reduce|all-gather|reduce-scatter|all-to-all|'
    r'collective-permute)(?:-start)?\(',
    text,
  )
  return collections.Counter(found)


def threshold_passes(text):
  """All-reduces of int32[entries, 15]: outside the loop, and in its body."""
  lines = re.findall(r'= s32\[\d+,15\]\S* all-reduce(?:-start)?\(.*', text)
  inside = [line for line in lines if 'while/body' in line]
  return len(lines) - len(inside), len(inside)


def compile_for(tmp_path, topology, shape, **env):
  script, out = tmp_path / 'compile.py', tmp_path / 'hlo.json'
  script.write_text(SCRIPT)
  line = [sys.executable, str(script), topology, *map(str, shape), str(out)]
  done = subprocess.run(
    line,
    env={
      **runs.environment(8),
      'JAX_ENABLE_COMPILATION_CACHE': 'false',
      **env,
    },
    capture_output=True,
    text=True,
    timeout=900,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(out.read_text())


def check(texts):
  full, dst = collectives(texts['full']), collectives(texts['dst'])
  # All passes share the loop's body.
  assert threshold_passes(texts['dst']) == (0, 1)
  assert threshold_passes(texts['full']) == (0, 0)
  # Nothing else is added, and above all nothing gathers.
  assert dst - full == {'all-reduce': 1}


def test_on_virtual_devices(tmp_path):
  check(compile_for(tmp_path, 'cpu', (2, 4)))


@pytest.mark.slow
@libtpu.needed
def test_on_a_tpu_topology(tmp_path):
  check(compile_for(tmp_path, 'v5e:4x4', (4, 4), **libtpu.environment()))
