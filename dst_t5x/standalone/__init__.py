"""The runner without T5X: network, data, training, evaluation, decoding.

  from dst_t5x import methods, seeds, standalone
  import dst_t5x.tasks.number_words
  settings = standalone.TrainSettings(
    method=methods.dst(), mixture_or_task_name='number_words',
    task_feature_lengths={'inputs': 64, 'targets': 64}, train_steps=300,
    batch_size=16, learning_rate=0.1, epsilon=0.01,
  )
  run = standalone.train(settings, seed=seeds.read('bundled'), out='run')

It is for one machine, whose devices share each batch. `dst-t5x train` runs it
from gin files.
"""

from typing import TYPE_CHECKING

from dst_t5x.arrays import late_names

if TYPE_CHECKING:
  from dst_t5x.standalone.evaluation import evaluate, evaluate_params
  from dst_t5x.standalone.interrupts import Interrupted
  from dst_t5x.standalone.prediction import (
    TruncationWarning,
    predict_texts,
    predictor,
  )
  from dst_t5x.standalone.run_checkpoints import CheckpointError
  from dst_t5x.standalone.run_dir import RunDirError
  from dst_t5x.standalone.run_saver import NonFiniteLossError
  from dst_t5x.standalone.seed_network import network_config
  from dst_t5x.standalone.settings import TrainSettings
  from dst_t5x.standalone.task_lookup import DataError, UnknownTaskError
  from dst_t5x.standalone.task_prediction import predict_task
  from dst_t5x.standalone.training import TrainResult, train

__all__ = [
  'CheckpointError',
  'DataError',
  'Interrupted',
  'NonFiniteLossError',
  'RunDirError',
  'TrainResult',
  'TrainSettings',
  'TruncationWarning',
  'UnknownTaskError',
  'evaluate',
  'evaluate_params',
  'network_config',
  'predict_task',
  'predict_texts',
  'predictor',
  'train',
]

# The module of each name. TensorFlow is slow to import; settings do without it.
_HOMES = {
  'CheckpointError': 'run_checkpoints',
  'DataError': 'task_lookup',
  'Interrupted': 'interrupts',
  'NonFiniteLossError': 'run_saver',
  'RunDirError': 'run_dir',
  'TrainResult': 'training',
  'TrainSettings': 'settings',
  'TruncationWarning': 'prediction',
  'UnknownTaskError': 'task_lookup',
  'evaluate': 'evaluation',
  'evaluate_params': 'evaluation',
  'network_config': 'seed_network',
  'predict_task': 'task_prediction',
  'predict_texts': 'prediction',
  'predictor': 'prediction',
  'train': 'training',
}

__getattr__, __dir__ = late_names.load_late(__name__, _HOMES)
