"""Calls without the type checks that only tests have, as a user calls."""

import contextlib
from collections.abc import Iterator

import jaxtyping


@contextlib.contextmanager
def calls() -> Iterator[None]:
  """Switches the checks of annotations off, to see our own errors."""
  jaxtyping.config.update('jaxtyping_disable', True)
  try:
    yield
  finally:
    jaxtyping.config.update('jaxtyping_disable', False)
