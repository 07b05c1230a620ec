"""Names the macros that a configuration of T5X uses and nothing binds.

gin says so itself, and then prints the whole configuration below its sentence.
This is asked first, and says which file is missing. gin/hosts/ imports it.
"""

from collections.abc import Mapping
from typing import Any

from gin import config as gin_config

_SIZES = 'a file of models/, such as --gin_file=models/t5_1_1_small.gin'
_TASK = 'a file of tasks/, such as --gin_file=tasks/super_glue.gin'
# What binds a macro, where it is one of our files.
_FILES = {
  'METHOD': 'a file of methods/, such as --gin_file=methods/dst.gin',
  **dict.fromkeys(
    ('MIXTURE_OR_TASK_NAME', 'TASK_FEATURE_LENGTHS', 'BEAM_SIZE'), _TASK
  ),
  **dict.fromkeys(
    (
      *('VOCAB_SIZE', 'EMB_DIM', 'NUM_HEADS', 'NUM_ENCODER_LAYERS'),
      *('NUM_DECODER_LAYERS', 'HEAD_DIM', 'MLP_DIM', 'MLP_ACTIVATIONS'),
      'LOGITS_VIA_EMBEDDING',
    ),
    _SIZES,
  ),
}


class MissingMacroError(ValueError):
  """A macro is used, and nothing binds it."""


def check(config: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
  """Raises if a macro is used that nothing binds.

  Args:
    config: gin's, parameters by scope and name of what they are bound to.

  Raises:
    MissingMacroError: naming each, and what would bind it.

  Example:
    >>> check({})
  """
  used = {
    repr(reference)[1:]
    for reference in gin_config.iterate_references(config)
    if repr(reference).startswith('%')
  }
  # A dot is in the name of a constant, such as gin.REQUIRED.
  missing = sorted(
    name
    for name in used
    if '.' not in name and (name, 'gin.macro') not in config
  )
  if missing:
    files = dict.fromkeys(
      _FILES.get(name, f'--gin.{name}=VALUE') for name in missing
    )
    raise MissingMacroError(
      f'this configuration uses {", ".join(missing)} and binds '
      f'{"it" if len(missing) == 1 else "them"} nowhere: add '
      + '; and '.join(files)
    )


# Before gin's own hooks, which it has registered when it was imported.
gin_config._FINALIZE_HOOKS.insert(0, check)
