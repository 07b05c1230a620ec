"""Counting changes from outside, against counts made by hand."""

import numpy as np
import pytest

from dst_t5x.analysis import changes
from dst_t5x.core import silos


def test_bits_are_compared_not_values():
  seed = np.float32([0.0, np.nan, 1.0, np.inf])
  other = np.array([0x80000000, 0x7FC00001, 0x3F800000, 0x7F800000], np.uint32)
  found = changes.changed_positions(seed, other.view(np.float32))
  assert found.tolist() == [True, True, False, False]


@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64'])
@pytest.mark.parametrize('shape', [(), (3,), (2, 3)])
def test_every_shape_and_dtype(dtype, shape):
  seed = np.ones(shape, dtype)
  assert not changes.changed_positions(seed, seed.copy()).any()
  assert changes.changed_positions(seed, seed + 1).all()
  assert changes.changed_positions(seed, seed + 1).shape == shape


def test_other_shapes_or_dtypes_are_refused():
  with pytest.raises(ValueError, match='cannot compare'):
    changes.changed_positions(np.ones(2), np.ones(3))
  with pytest.raises(ValueError, match='cannot compare'):
    changes.changed_positions(np.ones(2), np.ones(2, np.float32))


def test_counts_and_overrun_per_silo():
  seed = {
    'a': {'w': np.zeros(4, np.float32)},
    'b': {'w': np.zeros(3, np.float32)},
  }
  tuned = {
    'a': {'w': np.float32([1, 0, 1, 0])},
    'b': {'w': np.float32([0, 5, 0])},
  }  # fmt: skip
  parts = silos.assign({'a/w': (4,), 'b/w': (3,)})
  found = changes.count_changes(seed, tuned, parts, (1, 1))
  assert found == changes.Changes(
    total=7, changed=3, per_silo={'a': 2, 'b': 1}, overrun=1
  )
  assert changes.count_changes(seed, tuned, parts, (2, 1)).overrun == 0


def test_slices_of_a_stack_are_counted_apart():
  seed = {'layers': {'mlp': {'w': np.zeros((2, 3), np.float32)}}}
  tuned = {'layers': {'mlp': {'w': np.float32([[1, 0], [1, 0], [0, 1]]).T}}}
  parts = silos.assign({'layers/mlp/w': (2, 3)}, stack_axes={'layers/mlp/w': 1})
  found = changes.count_changes(seed, tuned, parts, (1, 1, 1))
  assert list(found.per_silo.values()) == [1, 1, 1]


def test_missing_parameters_are_refused():
  parts = silos.assign({'a': (1,)})
  with pytest.raises(ValueError, match="differ in \\['b'\\]"):
    changes.count_changes(
      {'a': np.ones(1)}, {'a': np.ones(1), 'b': np.ones(1)}, parts, (1,)
    )


def test_share_per_module_puts_layers_together():
  def tree(x):
    return {
      'encoder': {f'layers_{i}': {'mlp': {'w': np.full(2, x)}} for i in (0, 1)}
    }

  assert changes.share_per_module(tree(0.0), tree(1.0)) == {
    'encoder/mlp': (4, 4)
  }
