"""Gin files and bindings become a run, or a named error."""

import pytest

from dst_t5x.standalone import gin_host, optimizers
from dst_t5x.standalone.gin_host import GinError

FILES = ['methods/dst.gin', 'tasks/number_words.gin', 'runs/finetune.gin']
BINDINGS = [
  'EPSILON=0.001',
  'TRAIN_STEPS=3',
  "INITIAL_CHECKPOINT_PATH='bundled'",
  "MODEL_DIR='run'",
]


def test_files_and_bindings_make_a_run():
  run, network = gin_host.parse(FILES, [*BINDINGS, 'BATCH_SIZE=7'])
  assert network is None
  assert run.model_dir == 'run'
  settings = run.settings()
  assert settings.method.name == 'dst'
  assert settings.epsilon == 0.001
  assert settings.batch_size == 7
  assert settings.train_steps == 3
  assert settings.mixture_or_task_name == 'number_words'
  assert set(settings.task_feature_lengths) == {'inputs', 'targets'}
  inner = settings.optimizer(settings.learning_rate)
  assert inner.init is not None
  settings.check()


@pytest.mark.parametrize(
  'name',
  ['dst', 'dst_no_churn', 'random_mask', 'pafi', 'bitfit', 'id3', 'repeat_d3',
   'full'],
)  # fmt: skip
def test_every_method_file_binds_its_method(name):
  run, _ = gin_host.parse([f'methods/{name}.gin', *FILES[1:]], BINDINGS)
  assert run.method.name == name


def test_a_models_file_names_the_network():
  _, network = gin_host.parse(['models/byte_tiny.gin', *FILES], BINDINGS)
  assert network is not None
  assert (network.emb_dim, network.num_heads) == (96, 8)


def test_parsing_twice_does_not_mix():
  first, _ = gin_host.parse(FILES, [*BINDINGS, 'BATCH_SIZE=7'])
  second, _ = gin_host.parse(FILES, BINDINGS)
  assert (first.batch_size, second.batch_size) == (7, 128)


def test_another_optimizer_by_binding(tmp_path):
  own = tmp_path / 'own.gin'
  own.write_text(
    'from __gin__ import dynamic_registration\n'
    'from dst_t5x.standalone import optimizers\n'
    'OPTIMIZER = @optimizers.adamw\n'
    'optimizers.adamw.weight_decay = 0.1\n'
  )
  run, _ = gin_host.parse([*FILES, str(own)], BINDINGS)
  assert run.optimizer.__name__ == optimizers.adamw.__name__


@pytest.mark.parametrize(
  ('files', 'bindings', 'message'),
  [
    (FILES, [*BINDINGS, 'EPSILN=0.1'], 'EPSILN.*nearest: EPSILON'),
    (FILES, [*BINDINGS, 'EPSILON'], 'NAME=VALUE'),
    (['methods/dts.gin', *FILES], BINDINGS, r'methods/dts\.gin'),
    (FILES[1:], BINDINGS, 'METHOD'),
    (FILES, BINDINGS[:1], 'required but not bound.*train_steps'),
    (FILES, [*BINDINGS, 'optimizers.adafactor.moment=1'], 'moment'),
    (FILES, [*BINDINGS, 'EPSILON=@nowhere.at_all()'], 'nowhere'),
    (FILES, [*BINDINGS, 'EMB_DIM=8'], 'network is incomplete.*VOCAB_SIZE'),
  ],
)
def test_wrong_names_are_named(files, bindings, message):
  with pytest.raises(GinError, match=message):
    gin_host.parse(files, bindings)
