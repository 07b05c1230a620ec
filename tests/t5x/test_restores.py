"""What real T5X restores, keeps and says of the model; on a tiny network."""

import types

import gin
import jax
import jax.numpy as jnp
import optax
import pytest
import seqio
import tensorflow as tf
from absl import logging
from t5x import (
  adafactor,  # type: ignore
  models,  # type: ignore
  partitioning,  # type: ignore
  utils,  # type: ignore
)
from t5x.examples.t5 import network as t5x_network  # type: ignore

from dst_t5x.checkpoint.manifest import ManifestError
from dst_t5x.core import methods
from dst_t5x.hooks import best, inner, restore
from dst_t5x.hooks.optimizer import Selective
from dst_t5x.network import transformer
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.seeds import conversion
from tests.t5x import runs

# Heads divide by eight, the devices of T5X's mesh on a CPU.
NETWORK = NetworkConfig(
  vocab_size=24,
  emb_dim=16,
  num_heads=8,
  num_encoder_layers=1,
  num_decoder_layers=1,
  head_dim=2,
  mlp_dim=32,
)
START = 5
LENGTHS = dict.fromkeys(
  ('encoder_input_tokens', 'decoder_input_tokens', 'decoder_target_tokens'),
  (2, 4),
)


def stock_adafactor(**options):
  return adafactor.Adafactor(
    logical_factor_rules=adafactor.standard_logical_factor_rules(), **options
  )


def t5x_model(optimizer_def):
  fields = NETWORK.to_dict()
  fields['mlp_activations'] = tuple(fields['mlp_activations'])
  vocabulary = seqio.PassThroughVocabulary(NETWORK.vocab_size, eos_id=1)
  return models.EncoderDecoderModel(
    module=t5x_network.Transformer(t5x_network.T5Config(**fields)),
    input_vocabulary=vocabulary,
    output_vocabulary=vocabulary,
    optimizer_def=optimizer_def,
  )


def initializer_of(cls, optimizer_def, **options):
  model = t5x_model(optimizer_def)
  return cls(
    optimizer_def=optimizer_def,
    init_fn=model.get_initial_variables,
    input_shapes=LENGTHS,
    partitioner=partitioning.PjitPartitioner(num_partitions=1),
    **options,
  )


@pytest.fixture(scope='module')
def seed(tmp_path_factory):
  folder = tmp_path_factory.mktemp('seed')
  params = transformer.init_params(NETWORK, jax.random.key(0))
  conversion.write('t5x', params, folder, step=START, config=None)
  return folder / f'checkpoint_{START}'


@pytest.fixture(scope='module')
def begin(seed):
  """Does what `t5x.train` does until there is a train state."""

  def begin(
    model_dir, *, inner_optimizer=None, path=None, save=None, **options
  ):
    selective = Selective(
      inner_optimizer or stock_adafactor(),
      methods.dst(),
      epsilon=options.pop('epsilon', 0.05),
    )
    initializer = initializer_of(
      restore.TrainInitializer,
      selective,
      **{
        'seed_path': str(seed),
        'model_dir': str(model_dir),
        'total_steps': 100,
        'restore_dataset': False,
        **options,
      },
    )
    model_dir.mkdir(exist_ok=True)
    config = path and utils.RestoreCheckpointConfig(
      path=str(path), dtype='float32'
    )
    state, manager = utils.create_checkpoint_manager_and_restore(
      initializer,
      initializer._partitioner,
      config,
      path and str(path),
      None,
      save_checkpoint_cfg=save or utils.SaveCheckpointConfig(period=1),
      model_dir=str(model_dir),
      use_orbax=True,
    )
    state = state or initializer.from_scratch(jax.random.PRNGKey(0))
    return types.SimpleNamespace(
      initializer=initializer, state=state, manager=manager
    )

  return begin


@pytest.fixture(scope='module')
def saved(begin, tmp_path_factory):
  """The checkpoint of a run that has just begun, and what T5X says of it."""
  folder = tmp_path_factory.mktemp('saved')
  run = begin(folder / 'run')
  info = model_info(run.initializer, folder / 'model-info.txt')
  run.manager.save(run.state)
  run.manager.close()
  return types.SimpleNamespace(
    model_dir=folder / 'run',
    checkpoint=folder / 'run' / f'checkpoint_{START}',
    info=info,
  )


def model_info(initializer, file):
  utils.log_model_info(
    str(file), initializer.global_train_state_shape, initializer._partitioner
  )
  return file.read_text().splitlines()


def test_model_info_is_that_of_stock_t5x_and_of_the_subset(
  begin, saved, tmp_path
):
  stock = initializer_of(utils.TrainStateInitializer, stock_adafactor())
  expected = model_info(stock, tmp_path / 'stock.txt')
  assert any('embed=16, mlp=32' in line for line in expected)
  subset = [x for x in saved.info if x.startswith('Variable subset')]
  assert [x for x in saved.info if x not in subset] == expected
  sizes = [int(x.partition(' size ')[2].split()[0]) for x in subset]
  total = sum(x.size for x in jax.tree.leaves(stock_shapes(stock)))
  assert sizes[-1] == sum(sizes[:-1]) == round(0.05 * total)
  assert f'of {total} parameters' in subset[-1]
  # A resumed run says the same.
  resumed = begin(saved.model_dir, path=saved.checkpoint)
  again = model_info(resumed.initializer, tmp_path / 'resumed.txt')
  assert again == saved.info


def stock_shapes(initializer):
  return initializer.global_train_state_shape.params


def test_what_describes_the_model_is_not_restored(begin, tmp_path):
  described = begin(tmp_path / 'run').initializer.global_train_state_shape
  with pytest.raises(NotImplementedError, match='model-info'):
    described.restore_state({})


def test_another_runs_checkpoint_is_refused_wherever_it_lies(
  begin, saved, tmp_path
):
  with pytest.raises(ManifestError) as raised:
    begin(tmp_path / 'run', path=saved.checkpoint, epsilon=0.02)
  for words in (
    'that T5X restored belongs to another run',
    'EPSILON: 0.05 there, 0.02 here',
    'BUDGET (as a count)',
  ):
    assert words in str(raised.value)


def test_inference_reads_the_checkpoint_that_it_was_told_of(
  begin, saved, tmp_path
):
  other = begin(tmp_path / 'run', inner_state='none')
  other.manager.save(other.state)
  other.manager.close()
  initializer = initializer_of(
    restore.InferenceInitializer, None, checkpoint_path=str(saved.checkpoint)
  )
  path = str(tmp_path / 'run' / f'checkpoint_{START}')
  with pytest.raises(ManifestError, match='CHECKPOINT_PATH'):
    utils.create_checkpoint_manager_and_restore(
      initializer,
      initializer._partitioner,
      utils.RestoreCheckpointConfig(path=path, dtype='float32'),
      path,
      None,
      use_orbax=True,
    )


@pytest.mark.parametrize(
  ('optimizer', 'words'),
  [
    (
      stock_adafactor(decay_rate=0.5),
      'OPTIMIZER (Adafactor.decay_rate): 0.8 there, 0.5 here',
    ),
    (inner.Optax(optax.adamw), 'OPTIMIZER: Adafactor there, Optax(adamw) here'),
  ],
  ids=['setting', 'class'],
)
def test_another_optimizer_is_named(begin, saved, optimizer, words):
  with pytest.raises(ManifestError) as raised:
    begin(saved.model_dir, inner_optimizer=optimizer)
  assert words in str(raised.value)


def test_an_optimizer_that_no_checkpoint_recorded_is_told_by_its_state(
  begin, saved, monkeypatch
):
  # As for a run of an older release.
  monkeypatch.setattr(inner, 'recorded', lambda optimizer: None)
  with pytest.raises(ManifestError, match='another inner optimizer.*OPTIMIZER'):
    begin(saved.model_dir, inner_optimizer=inner.Optax(optax.adamw))


def test_a_position_of_the_input_that_was_not_saved(begin, saved):
  with pytest.raises(ValueError, match='SAVE_DATASET=False'):
    begin(saved.model_dir, restore_dataset=True)


def test_a_run_without_model_dir(seed):
  with pytest.raises(ValueError, match='%MODEL_DIR'):
    initializer_of(
      restore.TrainInitializer,
      Selective(stock_adafactor(), methods.dst(), epsilon=0.05),
      seed_path=str(seed),
      model_dir='',
      total_steps=100,
    )


@pytest.fixture
def bind():
  def bind(path):
    gin.parse_config(
      'from __gin__ import dynamic_registration\n'
      'from t5x import utils\n'
      'utils.CheckpointConfig.restore = @utils.RestoreCheckpointConfig()\n'
      'PATH = %HERE\n'
      f'HERE = {str(path)!r}\n'
      'utils.RestoreCheckpointConfig.path = %PATH\n'
    )

  gin.clear_config()
  yield bind
  gin.clear_config()


def test_a_seed_that_t5x_is_told_to_restore(begin, seed, bind, tmp_path):
  bind(seed)
  with pytest.raises(ValueError, match=r'CheckpointConfig\.restore = None'):
    begin(tmp_path / 'run')


def test_a_checkpoint_of_a_run_may_be_restored(begin, saved, bind, tmp_path):
  bind(saved.checkpoint)
  run = begin(tmp_path / 'run', path=saved.checkpoint)
  assert int(run.state.step) == START


def test_what_t5x_keeps_by_a_metric(begin, tmp_path, monkeypatch):
  said = []
  monkeypatch.setattr(
    logging, 'warning', lambda text, *values: said.append(text % values)
  )
  folder = tmp_path / 'run'
  run = begin(
    folder,
    best_metric='train/los',
    save=utils.SaveCheckpointConfig(
      period=1, keep=1, checkpointer_cls=best.checkpointer('train/loss', 'min')
    ),
  )
  writer = tf.summary.create_file_writer(str(folder / 'train'))

  def save(step, **losses):
    with writer.as_default():
      for name, loss in losses.items():
        tf.summary.scalar('loss', loss, step=int(name.removeprefix('at_')))
    writer.flush()
    run.manager.save(run.state.replace_step(jnp.int32(step)))
    run.manager.wait_until_finished()
    return runs.steps(folder)

  assert save(5) == [5]
  assert not [x for x in said if 'BEST_METRIC' in x]
  assert save(6, at_6=0.2) == [5, 6]
  assert save(7, at_7=0.1) == [5, 7]
  # What is evaluated after it was saved stays until the next save.
  assert save(8) == [5, 7, 8]
  assert save(9, at_8=0.5, at_9=0.3) == [5, 7]
  run.manager.close()
  # The run was told another name.
  assert len([x for x in said if 'BEST_METRIC' in x]) == 3
  warning = next(x for x in said if 'BEST_METRIC' in x)
  assert "BEST_METRIC='train/los'" in warning
  assert 'train/loss' in warning.partition('similar: ')[2]
