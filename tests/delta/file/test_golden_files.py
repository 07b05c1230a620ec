"""Golden files: read for ever, and written to the byte."""

import dataclasses

import pytest
import safetensors.numpy

from dst_t5x.delta.file import container
from tests import delta_reference
from tests.delta.file.example_deltas import (
  GOLDEN,
  GOLDENS,
)


def _words(params) -> dict[str, list[int]]:
  return {
    path: array.reshape(-1).view(f'u{array.itemsize}').tolist()
    for path, array in params.items()
  }


@pytest.mark.parametrize('name', GOLDENS)
def test_golden_files_are_read_for_ever(name):
  delta, seed = GOLDENS[name]
  assert container.read(GOLDEN / name, seed=seed) == delta


@pytest.mark.parametrize('name', GOLDENS)
def test_golden_files_hold_what_the_specification_says(name):
  delta, seed = GOLDENS[name]
  metadata, entries = delta_reference.read(
    (GOLDEN / name).read_bytes(), seed and _words(seed)
  )
  assert metadata.pop('format') == 'dst_t5x.delta'
  assert f'_v{metadata.pop("version")}.' in name
  assert metadata == {
    key: str(value)
    for key, value in dataclasses.asdict(delta.info).items()
    if value is not None
  }
  assert list(entries) == list(delta.entries)
  for path, entry in delta.entries.items():
    assert entries[path] == (
      entry.dtype.name,
      list(entry.shape),
      entry.positions.tolist(),
      entry.values.view(f'u{entry.dtype.itemsize}').tolist(),
    )


@pytest.mark.parametrize('name', GOLDENS)
def test_golden_files_are_written_to_the_byte(tmp_path, name):
  delta, seed = GOLDENS[name]
  file = tmp_path / 'delta.safetensors'
  size = container.write(delta, file, seed=seed)
  assert file.read_bytes() == (GOLDEN / name).read_bytes()
  assert size == file.stat().st_size


def test_golden_files_cover_both_codes():
  codes = {
    safetensors.numpy.load_file(GOLDEN / name)['positions'][0]
    for name in GOLDENS
  }
  assert 64 in codes and codes & set(range(41))
