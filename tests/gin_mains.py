"""Gin's state after a main has read gin files: T5X's, or our own runner."""

import contextlib
import importlib
import re
import sys
from collections.abc import Iterator, Sequence

import gin
import pytest

from tests.gin_headers import ROOT, T5X_ROOT

# What the files call the main that reads them, and the module that is it.
MAINS = {
  'train_script': 't5x.train',
  'eval_script': 't5x.eval',
  'infer_script': 't5x.infer',
}


def main_of(text: str) -> str | None:
  """The module that a file imports as `__main__`, None if it imports none."""
  found = re.search(r'^import __main__ as (\w+)$', text, re.M)
  return MAINS[found[1]] if found else None


def needs_t5x(text: str) -> bool:
  return bool(re.search(r'^(from|import) t5x', text, re.M))


@contextlib.contextmanager
def parsed(
  files: Sequence[str], bindings: Sequence[str] = (), main: str | None = None
) -> Iterator[None]:
  """Parses files, then bindings, as the module `main` would if it were run."""
  with pytest.MonkeyPatch.context() as patch:
    if main is not None:
      patch.setitem(sys.modules, '__main__', importlib.import_module(main))
    patch.chdir(ROOT)
    if T5X_ROOT is not None:
      gin.add_config_file_search_path(str(T5X_ROOT))
    gin.clear_config()
    try:
      gin.parse_config_files_and_bindings(
        list(files), list(bindings), finalize_config=False
      )
      yield
    finally:
      gin.clear_config()
