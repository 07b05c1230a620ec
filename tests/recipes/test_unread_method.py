"""A method file on top of a training run that does not read METHOD."""

import gin
import pytest
from gin import config as gin_config

from dst_t5x.recipes import gin_path
from dst_t5x.recipes.unread_method import UnreadMethodError, check, reads

# A training main that looks as T5X's does to gin.
TRAIN = """
from __gin__ import dynamic_registration
from tests.recipes import test_unread_method as script

script.train.trainer_cls = @script.Trainer
"""
METHODS = sorted((gin_path.root() / 'methods').glob('*.gin'))


def train(trainer_cls=None, method=None):
  """Stands for T5X's."""


class Trainer:
  """Stands for T5X's."""


@pytest.fixture(autouse=True)
def forget():
  gin.clear_config()
  yield
  gin.clear_config()


@pytest.mark.parametrize('file', METHODS, ids=lambda file: file.stem)
def test_every_method_file_looks(file):
  gin.parse_config(TRAIN)
  gin.parse_config_file(str(file))
  with pytest.raises(UnreadMethodError, match='hosts/on_top_t5x.gin'):
    gin.finalize()


def test_what_reads_the_method_is_left_alone():
  gin.parse_config(TRAIN + 'script.train.method = %METHOD\n')
  gin.parse_config_file(str(METHODS[0]))
  gin.finalize()
  assert reads(gin_config._CONFIG, 'METHOD')
  assert not reads(gin_config._CONFIG, 'EPSILON')


def test_other_mains_are_left_alone():
  gin.parse_config_file(str(METHODS[0]))
  gin.finalize()


def test_a_method_within_a_value_is_read():
  gin.parse_config(TRAIN + "script.train.method = {'a': [%METHOD]}\n")
  gin.parse_config_file(str(METHODS[0]))
  check(gin_config._CONFIG)
