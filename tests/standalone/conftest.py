"""A network, a seed and a text file small enough for whole runs."""

import jax
import pytest

from dst_t5x import seeds
from dst_t5x.core import methods
from dst_t5x.network import transformer
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.standalone import optimizers, text_files, training
from dst_t5x.standalone.settings import TrainSettings

CONFIG = NetworkConfig(
  vocab_size=264,
  emb_dim=8,
  num_heads=2,
  num_encoder_layers=1,
  num_decoder_layers=1,
  head_dim=4,
  mlp_dim=16,
)
PAIRS = [
  (f'{number}', word)
  for number, word in enumerate(
    'null eins zwei drei vier fünf sechs sieben acht neun'.split()
  )
]


@pytest.fixture(scope='session', autouse=True)
def _compiled_once(compilation_cache):
  """Every run here compiles the same few programs."""


@pytest.fixture
def one_device(monkeypatch):
  """Runs on one device; a program for eight compiles much more slowly."""
  mesh = jax.sharding.Mesh(jax.devices()[:1], ('data',))
  monkeypatch.setattr(training, 'data_mesh', lambda: mesh)


@pytest.fixture(scope='session')
def seed_file(tmp_path_factory):
  path = tmp_path_factory.mktemp('seed') / 'seed.safetensors'
  params = jax.device_get(transformer.init_params(CONFIG, jax.random.key(0)))
  seeds.write(path, params, config=CONFIG.to_dict())
  return path


@pytest.fixture(scope='session')
def tiny_seed(seed_file):
  return seeds.read(seed_file)


@pytest.fixture(scope='session')
def text_file(tmp_path_factory):
  path = tmp_path_factory.mktemp('text') / 'pairs.tsv'
  path.write_text(''.join(f'{a}\t{b}\n' for a, b in PAIRS), encoding='utf-8')
  return path


@pytest.fixture(scope='session')
def text_task(text_file):
  return text_files.register(text_file, text_file)


@pytest.fixture
def tiny_settings(text_task):
  return TrainSettings(
    method=methods.dst(),
    mixture_or_task_name=text_task,
    task_feature_lengths={'inputs': 16, 'targets': 16},
    train_steps=6,
    batch_size=8,
    learning_rate=0.1,
    optimizer=optimizers.adamw,
    epsilon=0.02,
    checkpoint_period=2,
    log_period=2,
  )
