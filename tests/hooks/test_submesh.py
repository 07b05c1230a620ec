"""Boxes of devices on slices that T5X has no default for."""

import math

import pytest

from dst_t5x.planning import slices

submesh = pytest.importorskip(
  'dst_t5x.hooks.submesh', reason='imports T5X, which is not installed'
)
ALL = [
  (name, kind, slices.parse(f'{name}-{number}'))
  for name, kind, numbers in (
    ('v5p', 'TPU v5', (8, 16, 32, 64, 128, 256, 512, 1024)),
    ('v5e', 'TPU v5 lite', (1, 4, 8, 16, 32, 64, 128, 256)),
    ('v6e', 'TPU v6 lite', (1, 4, 8, 16, 32, 64, 128, 256)),
  )
  for number in numbers
]


@pytest.mark.parametrize(('name', 'kind', 'slice_'), ALL)
def test_divides_the_slice(name, kind, slice_):
  bounds = (*slice_.topology, 1, 1)[:4]
  parts = 1
  while parts <= slice_.devices:
    box = submesh.choose(parts, bounds, kind=kind)
    assert math.prod(box) == parts
    assert all(size % part == 0 for size, part in zip(bounds, box, strict=True))
    # One device in one dimension more does not make a box less compact.
    assert box[3] == 1
    parts *= 2


@pytest.mark.parametrize(
  ('parts', 'bounds', 'kind', 'box'),
  [
    # A whole axis of a cube is a ring.
    (4, (4, 4, 4, 1), 'TPU v5', (4, 1, 1, 1)),
    (8, (4, 4, 8, 1), 'TPU v5', (1, 1, 8, 1)),
    # Less than a cube has no rings.
    (4, (2, 2, 4, 1), 'TPU v5', (2, 2, 1, 1)),
    (4, (4, 4, 1, 1), 'TPU v5 lite', (2, 2, 1, 1)),
    (16, (16, 16, 1, 1), 'TPU v5 lite', (16, 1, 1, 1)),
    (16, (4, 4, 1, 1), 'TPU v6 lite', (4, 4, 1, 1)),
  ],
)
def test_prefers_rings_then_boxes(parts, bounds, kind, box):
  assert submesh.choose(parts, bounds, kind=kind) == box


@pytest.mark.parametrize('parts', [3, 5, 128])
def test_refuses_what_no_box_holds(parts):
  with pytest.raises(ValueError, match=f'num_partitions={parts}: no box'):
    submesh.choose(parts, (4, 4, 4, 1), kind='TPU v5')
