"""Checkpoints of real T5X are read, and it restores ours without us."""

import dataclasses
import types
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import seqio
from t5x import (
  adafactor,  # type: ignore
  checkpoints,  # type: ignore
  models,  # type: ignore
  partitioning,  # type: ignore
  utils,  # type: ignore
)
from t5x.examples.t5 import network as t5x_network  # type: ignore

from dst_t5x import seeds
from dst_t5x.arrays import fingerprints, paths
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.seeds import conversion

# T5X's mesh on a CPU is model-parallel over all eight devices, so sizes have to
# divide by eight; and its arrays are written in eight pieces.
UNTIED = NetworkConfig(
  vocab_size=24,
  emb_dim=16,
  num_heads=8,
  num_encoder_layers=1,
  num_decoder_layers=2,
  head_dim=3,
  mlp_dim=32,
)
TIED = dataclasses.replace(UNTIED, logits_via_embedding=True)
STEP = 1000
LENGTHS = {
  'encoder_input_tokens': (2, 4),
  'decoder_input_tokens': (2, 4),
  'decoder_target_tokens': (2, 4),
}


def t5x(config=UNTIED, *, training=True):
  """T5X's own objects for a network."""
  optimizer = adafactor.Adafactor(
    0.1, logical_factor_rules=adafactor.standard_logical_factor_rules()
  )
  fields = config.to_dict()
  fields['mlp_activations'] = tuple(fields['mlp_activations'])
  vocabulary = seqio.PassThroughVocabulary(config.vocab_size, eos_id=1)
  model = models.EncoderDecoderModel(
    module=t5x_network.Transformer(t5x_network.T5Config(**fields)),
    input_vocabulary=vocabulary,
    output_vocabulary=vocabulary,
    optimizer_def=optimizer if training else None,
  )
  partitioner = partitioning.PjitPartitioner(num_partitions=1)
  initializer = utils.TrainStateInitializer(
    optimizer_def=model.optimizer_def,
    init_fn=model.get_initial_variables,
    input_shapes=LENGTHS,
    partitioner=partitioner,
  )
  return types.SimpleNamespace(
    model=model, partitioner=partitioner, initializer=initializer
  )


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """A train state of T5X, saved by T5X in both layouts and two dtypes."""
  host = t5x()
  state = host.initializer.from_scratch(jax.random.PRNGKey(0))
  state = state.replace_step(jnp.int32(STEP))
  shape = host.initializer.global_train_state_shape
  params = jax.device_get(dict(state.params))
  folder = tmp_path_factory.mktemp('t5x')
  for dtype in ('float32', 'bfloat16'):
    where = folder / dtype
    # Its Orbax manager does not cast, whatever its save_dtype says.
    cast = jax.tree.map(lambda x, to=dtype: x.astype(to), state.params)
    state = state.replace_params(cast)
    for layout in ('t5x', 'orbax'):
      (where / layout).mkdir(parents=True)
    checkpoints.Checkpointer(
      shape, host.partitioner, str(where / 't5x'), save_dtype=jnp.dtype(dtype)
    ).save(state)
    manager = checkpoints.OrbaxCheckpointManagerInterface(
      str(where / 'orbax'), shape, host.partitioner, save_dtype=jnp.dtype(dtype)
    )
    manager.save(state)
    manager.close()
  return types.SimpleNamespace(folder=folder, params=params)


def assert_same(found, expected):
  found, expected = paths.flatten(found), paths.flatten(expected)
  assert list(found) == list(expected)
  for name, want in expected.items():
    have = np.asarray(found[name])
    assert (have.dtype, have.shape) == (want.dtype, want.shape), name
    assert have.tobytes() == np.asarray(want).tobytes(), name


def random_params(config, dtype=np.float32):
  rng = np.random.default_rng(1)
  host = t5x(config, training=False)
  shapes = host.initializer.global_train_state_shape.params
  return jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(dtype), dict(shapes)
  )


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('layout', ['t5x', 'orbax'])
def test_what_t5x_wrote_is_read(saved, layout, dtype):
  params = jax.tree.map(lambda x: np.asarray(x.astype(dtype)), saved.params)
  location = saved.folder / dtype / layout / f'checkpoint_{STEP}'
  source = seeds.open_source(location)
  assert (source.layout, source.step, source.config) == (layout, STEP, None)
  assert source.location == str(location)
  seed = seeds.read(location)
  assert_same(seed.params, params)
  assert fingerprints.combine(source.digests()) == seeds.fingerprint(params)
  specs = {k: (v.shape, v.dtype) for k, v in source.specs().items()}
  flat = paths.flatten(params)
  assert specs == {k: (v.shape, v.dtype) for k, v in flat.items()}


@pytest.mark.parametrize('layout', ['t5x', 'orbax'])
def test_what_t5x_wrote_is_read_onto_another_mesh(saved, layout):
  location = saved.folder / 'float32' / layout / f'checkpoint_{STEP}'
  mesh = jax.make_mesh((2, 2), ('x', 'y'), devices=jax.devices()[:4])
  source = seeds.open_source(location)
  shardings = {
    name: jax.NamedSharding(
      mesh, jax.P('y', 'x') if len(spec.shape) == 2 else jax.P()
    )
    for name, spec in source.specs().items()
  }
  found = source.read(shardings)
  for name, array in found.items():
    assert array.sharding == shardings[name]
  assert_same(paths.unflatten(found), saved.params)
  half = source.read(shardings, dtype=jnp.bfloat16)
  want = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16), saved.params)
  assert_same(paths.unflatten(half), want)


def test_the_state_of_the_optimizer_is_not_read(saved, monkeypatch):
  import orbax.checkpoint as ocp

  asked = []
  restore = ocp.PyTreeCheckpointHandler.restore

  def spy(self, directory, args):
    asked.extend(paths.flatten(args.item))
    return restore(self, directory, args=args)

  monkeypatch.setattr(ocp.PyTreeCheckpointHandler, 'restore', spy)
  seeds.read(saved.folder / 'float32' / 'orbax' / f'checkpoint_{STEP}')
  assert 'target/token_embedder/embedding' in asked
  others = {name for name in asked if not name.startswith('target/')}
  assert others == {'state/step'}


def test_an_item_of_t5xs_checkpoint_is_one_too(saved):
  whole = saved.folder / 'float32' / 'orbax' / f'checkpoint_{STEP}'
  assert_same(seeds.read(whole / 'state').params, saved.params)
  assert seeds.open_source(whole / 'state').step == STEP


def restored(config, location, *, orbax, training, fallback=False) -> Any:
  """What T5X makes of a checkpoint, as its infer and train scripts do."""
  host = t5x(config, training=training)
  state, _ = utils.create_checkpoint_manager_and_restore(
    host.initializer,
    host.partitioner,
    utils.RestoreCheckpointConfig(
      path=str(location),
      mode='specific',
      dtype=None,
      # What stock gin files can say, too.
      assignment_map=((r'state/param_states.*', None),) if fallback else None,
      fallback_to_scratch=fallback,
      # As in t5x.infer, which needs no state of an optimizer.
      strict=training,
    ),
    str(location),
    jax.random.PRNGKey(1) if fallback else None,
    use_orbax=orbax,
  )
  return state


@pytest.mark.parametrize(
  ('layout', 'orbax'), [('t5x', False), ('t5x', True), ('orbax', True)]
)
@pytest.mark.parametrize(
  ('config', 'dtype'),
  [(UNTIED, np.float32), (TIED, ml_dtypes.bfloat16)],
  ids=['untied', 'tied'],
)
def test_t5x_restores_ours_for_inference(
  tmp_path, layout, orbax, config, dtype
):
  params = random_params(config, dtype)
  where = conversion.write(layout, params, tmp_path / 'run', step=STEP)
  assert where == str(tmp_path / 'run' / f'checkpoint_{STEP}')
  state = restored(config, where, orbax=orbax, training=False)
  assert int(state.step) == STEP
  assert_same(jax.device_get(dict(state.params)), params)


@pytest.mark.parametrize(
  ('layout', 'orbax'), [('t5x', False), ('t5x', True), ('orbax', True)]
)
def test_t5x_restores_ours_for_training(tmp_path, layout, orbax):
  params = random_params(UNTIED)
  where = conversion.write(layout, params, tmp_path / 'checkpoint_7')
  state = restored(UNTIED, where, orbax=orbax, training=True, fallback=True)
  assert int(state.step) == 7
  assert_same(jax.device_get(dict(state.params)), params)
  assert jax.tree.leaves(state.param_states)


def test_t5x_reads_our_legacy_checkpoint_without_a_model(tmp_path):
  params = random_params(TIED)
  where = conversion.write('t5x', params, tmp_path / 'checkpoint_7')
  found = checkpoints.load_t5x_checkpoint(where)
  assert int(found['state']['step']) == 7
  assert_same(found['target'], params)


def test_t5xs_interactive_model_takes_our_legacy_checkpoint(tmp_path):
  from t5x import interactive_model  # type: ignore

  params = random_params(UNTIED)
  where = conversion.write('t5x', params, tmp_path / 'run' / 'checkpoint_7')
  host = t5x(training=False)
  model: Any = interactive_model.InteractiveModel(
    batch_size=2,
    task_feature_lengths={'inputs': 4, 'targets': 4},
    output_dir=str(tmp_path / 'out'),
    partitioner=host.partitioner,
    model=host.model,
    dtype=None,
    restore_mode='specific',
    checkpoint_path=where,
    input_shapes=LENGTHS,
  )
  assert model.step == 7
  found = jax.device_get(dict(model.train_state.params))
  assert_same(found, params)


@pytest.mark.parametrize('to', ['t5x', 'orbax', 'dst_t5x', 'hf'])
@pytest.mark.parametrize('layout', ['t5x', 'orbax'])
def test_what_t5x_wrote_survives_every_layout(saved, tmp_path, layout, to):
  location = saved.folder / 'float32' / layout / f'checkpoint_{STEP}'
  suffix = '.safetensors' if to == 'dst_t5x' else ''
  where = conversion.write(
    to, seeds.read(location).params, tmp_path / f'out{suffix}', step=STEP
  )
  assert_same(seeds.read(where).params, saved.params)
