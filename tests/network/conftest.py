"""The networks of these tests are small and few."""

import pytest


@pytest.fixture(scope='session', autouse=True)
def _compiled_once(compilation_cache):
  """Every test here compiles the same few programs."""
