"""Trains configurations that T5X ships for two steps, with a method on top.

  python -m tests.t5x.trained_configs FOLDER NAME…

All in one process, since importing T5X takes longer than such a run. A seed is
the model's own random parameters, written as T5X writes them. Each run leaves
FOLDER/NAME/seed, its checkpoints in FOLDER/NAME/run.
"""

import pathlib
import sys
from typing import NamedTuple

import gin
import jax
import t5x.train  # type: ignore

from dst_t5x.seeds import conversion
from tests.t5x import captured_mains

EPSILON = 0.01
ON_TOP = ('methods/dst.gin', 'hosts/on_top_t5x.gin')
_FINETUNE, _PRETRAIN = (
  f't5x/configs/runs/{name}.gin' for name in ('finetune', 'pretrain')
)
# T5's vocabulary lies in Google's storage, and its tasks in the package t5.
_DATA = """
from __gin__ import dynamic_registration
import __main__ as train_script
import dst_t5x.tasks.number_words
from dst_t5x.tasks import vocabularies
from t5x import utils

VOCABULARY = @vocabularies.byte()
MIXTURE_OR_TASK_NAME = 'number_words'
MIXTURE_OR_TASK_MODULE = None
USE_CACHED_TASKS = False
TRAIN_STEPS = 5
BATCH_SIZE = 8
utils.create_learning_rate_scheduler.base_learning_rate = 0.1
train_script.train.eval_period = 0
utils.CheckpointConfig.save = @utils.SaveCheckpointConfig()
utils.SaveCheckpointConfig.period = 2
"""
_LENGTHS = "TASK_FEATURE_LENGTHS = {'inputs': 64, 'targets': 64}"
_ONE = 'partitioning.PjitPartitioner.num_partitions = 1'


class Trained(NamedTuple):
  """A configuration that is small enough to be trained.

  Attributes:
    files: as a user gives them.
    bindings: besides those for data and steps.
  """

  files: tuple[str, ...]
  bindings: tuple[str, ...] = ()


_T5, _SCALABLE = 't5x/examples/t5', 't5x/examples/scalable_t5'
_DROPOUT = 'DROPOUT_RATE = 0.0'
TRAINED = {
  't5_1_1_tiny': Trained((f'{_T5}/t5_1_1/tiny.gin', _FINETUNE)),
  't5_1_0_tiny': Trained((f'{_T5}/t5_1_0/tiny.gin', _FINETUNE)),
  'byt5_tiny': Trained((f'{_T5}/byt5/tiny.gin', _FINETUNE)),
  'mt5_tiny': Trained((f'{_T5}/mt5/tiny.gin', _FINETUNE)),
  'train_t5_tiny': Trained(
    (f'{_T5}/t5_1_1/examples/test_train_t5_tiny.gin',), (_ONE,)
  ),
  't5_local_tiny': Trained(
    (f'{_T5}/t5_1_1/base.gin', _PRETRAIN, f'{_T5}/local_tiny.gin'),
    (_DROPOUT,),
  ),
  # Not small as they are: their layers are made so.
  'scalable_t5': Trained(
    (f'{_SCALABLE}/t5_1_1/small.gin', _FINETUNE),
    tuple(
      f'network.T5Config.{size}'
      for size in (
        *('vocab_size = 384', 'emb_dim = 16', 'mlp_dim = 32', 'num_heads = 2'),
        *('head_dim = 8', 'num_encoder_layers = 3', 'num_decoder_layers = 3'),
      )
    ),
  ),
  'decoder_only': Trained(
    ('t5x/examples/decoder_only/models/base.gin', _PRETRAIN),
    (
      _DROPOUT,
      *(
        f'network.TransformerConfig.{size}'
        for size in (
          *('vocab_size = 384', 'emb_dim = 16', 'mlp_dim = 32'),
          *('num_heads = 2', 'head_dim = 8', 'num_layers = 2'),
        )
      ),
    ),
  ),
}


def train(name: str, folder: pathlib.Path) -> None:
  """Trains a configuration for two steps from a seed of its own."""
  config = TRAINED[name]
  folder.mkdir(parents=True)
  data, seed = folder / 'data.gin', folder / 'seed'
  data.write_text(_DATA)
  files = [*config.files, str(data)]
  bindings = [
    _LENGTHS,
    *config.bindings,
    f"MODEL_DIR = '{folder / 'run'}'",
    f"INITIAL_CHECKPOINT_PATH = '{seed / 'checkpoint_3'}'",
  ]
  with captured_mains.read(files, bindings):
    model = captured_mains.arguments_of('train')['model']
    shapes = captured_mains.input_shapes(model)
    params = model.get_initial_variables(jax.random.key(1), shapes)['params']
  conversion.write('t5x', jax.device_get(params), seed, step=3)
  with captured_mains.read(
    [*files, *ON_TOP], [*bindings, f'EPSILON = {EPSILON}'], main=t5x.train
  ):
    gin.get_configurable(t5x.train.train)()


def main(arguments: list[str]) -> None:
  """Trains all that the command line names."""
  root, *names = arguments
  for name in names:
    print(f'training {name}', flush=True)
    train(name, pathlib.Path(root, name))


if __name__ == '__main__':
  main(sys.argv[1:])
