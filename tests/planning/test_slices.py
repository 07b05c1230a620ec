"""Slices against the tables of Cloud TPU's documentation."""

import pytest

from dst_t5x.planning import slices

# Copied from the pages "TPU v5p" (columns Topology, Cores, Chips, Hosts), "TPU
# v4" and "TPU v5e".
PUBLISHED = [
  ('v5p', '2x2x1', 8, 4, 1),
  ('v5p', '2x2x2', 16, 8, 2),
  ('v5p', '2x4x4', 64, 32, 8),
  ('v5p', '4x4x4', 128, 64, 16),
  ('v5p', '4x4x8', 256, 128, 32),
  ('v5p', '4x8x8', 512, 256, 64),
  ('v5p', '8x8x8', 1024, 512, 128),
  ('v5p', '8x8x16', 2048, 1024, 256),
  ('v5p', '8x16x16', 4096, 2048, 512),
  ('v5p', '16x16x16', 8192, 4096, 1024),
  ('v5p', '16x16x24', 12288, 6144, 1536),
  ('v4', '2x2x1', 8, 4, 1),
  ('v4', '2x2x4', 32, 16, 4),
  ('v4', '4x4x4', 128, 64, 16),
  ('v5litepod', '4x4', 16, 16, 4),
  ('v5litepod', '16x16', 256, 256, 64),
]


@pytest.mark.parametrize(
  ('name', 'topology', 'number', 'chips', 'hosts'), PUBLISHED
)
def test_as_published(name, topology, number, chips, hosts):
  found = slices.parse(f'{name}-{number}')
  assert (found.chips, found.devices, found.hosts) == (chips, chips, hosts)
  assert 'x'.join(map(str, found.topology)) == topology
  assert found.accelerator_type == f'{name}-{number}'
  # Both names are one slice.
  assert slices.parse(str(found)) == found


@pytest.mark.parametrize(
  ('text', 'topology', 'hosts', 'accelerator', 'runtime'),
  [
    ('v4-8', 'v4:2x2x1', 1, 'v4-8', 'tpu-ubuntu2204-base'),
    ('v5e-16', 'v5e:4x4', 4, 'v5litepod-16', 'v2-alpha-tpuv5-lite'),
    ('v5e-8', 'v5e:2x4', 1, 'v5litepod-8', 'v2-alpha-tpuv5-lite'),
    ('v5p-128', 'v5p:4x4x4', 16, 'v5p-128', 'v2-alpha-tpuv5'),
    ('v6e-1', 'v6e:1x1', 1, 'v6e-1', 'v2-alpha-tpuv6e'),
  ],
)
def test_names(text, topology, hosts, accelerator, runtime):
  found = slices.parse(text)
  assert str(found) == topology
  assert found.hosts == hosts
  assert found.accelerator_type == accelerator
  assert found.runtime_version == runtime
  assert found.hosts * found.devices_per_host == found.devices


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('v5p-7', "'v5p-7' is no slice; v5p has v5p-8, v5p-16"),
    ('v5p:3x3x3', 'v5p has v5p:2x2x1'),
    # The number must be whole, not the end of another one.
    ('v5p-28', 'is no slice'),
    ('v5x-8', "no TPU generation 'v5x'; did you mean v5p"),
    ('tpu', 'no TPU generation|is no TPU slice'),
    ('v5p:4x4x', 'is no TPU slice: give an accelerator type'),
    ('', 'is no TPU slice'),
  ],
)
def test_refuses(text, message):
  with pytest.raises(ValueError, match=message):
    slices.parse(text)
