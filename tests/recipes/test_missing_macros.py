"""Which file is missing, said before gin prints the whole configuration."""

import gin
import pytest

from dst_t5x.recipes.missing_macros import MissingMacroError

CONFIG = """
from __gin__ import dynamic_registration
import dst_t5x.recipes.missing_macros
from tests.recipes import test_missing_macros as script

script.run.method = [%METHOD]
script.run.sizes = {'a': %EMB_DIM, 'b': %NUM_HEADS}
"""


def run(method=None, sizes=None, required=None):
  """Stands for a main."""


@pytest.fixture(autouse=True)
def forget():
  gin.clear_config()
  yield
  gin.clear_config()


def test_each_missing_file_is_named_once():
  gin.parse_config(CONFIG)
  with pytest.raises(MissingMacroError) as error:
    gin.finalize()
  text = str(error.value)
  assert text.startswith('this configuration uses EMB_DIM, METHOD, NUM_HEADS ')
  assert text.count('models/') == 2  # the folder, and a file in it
  assert 'methods/dst.gin' in text
  assert '\n' not in text


def test_other_macros_are_to_be_given_by_flag():
  gin.parse_config(CONFIG + 'METHOD = 1\nEMB_DIM = 2\nNUM_HEADS = %HEADS\n')
  with pytest.raises(MissingMacroError, match=r'uses HEADS .* --gin.HEADS='):
    gin.finalize()


def test_what_is_bound_passes():
  gin.parse_config(CONFIG + 'METHOD = 1\nEMB_DIM = 2\nNUM_HEADS = 3\n')
  gin.finalize()


def test_constants_are_left_to_gin():
  bound = 'METHOD = 1\nEMB_DIM = 2\nNUM_HEADS = 3\n'
  gin.parse_config(CONFIG + bound + 'script.run.required = %gin.REQUIRED\n')
  with pytest.raises(ValueError, match='REQUIRED') as error:
    gin.finalize()
  assert not isinstance(error.value, MissingMacroError)
