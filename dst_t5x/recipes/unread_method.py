"""Refuses a T5X configuration that binds a method which nothing reads.

Gin takes a binding of a macro that nobody reads without a word. So a method
file on top of a user's own configuration would train every parameter, and end
well. The method files import this module, which looks when gin has read the
last file; T5X's mains ask for that, our own runner does not.
"""

from collections.abc import Mapping
from typing import Any

from gin import config as gin_config

MACRO = ('METHOD', 'gin.macro')
# What hosts/on_top_t5x.gin binds, which reads METHOD when gin has read all.
_ON_TOP = ('', 'dst_t5x.hooks.on_top.gin_bindings.bindings')


class UnreadMethodError(ValueError):
  """A run of T5X has a method, and would train without it."""


@gin_config.register_finalize_hook
def check(config: Mapping[tuple[str, str], Mapping[str, Any]]) -> None:
  """Raises if a training run of T5X binds METHOD and does not read it.

  Args:
    config: gin's, parameters by scope and name of what they are bound to.

  Raises:
    UnreadMethodError: saying which file to add.

  Example:
    >>> check({})
  """
  trains = any(
    name.rpartition('.')[2] == 'train' and 'trainer_cls' in parameters
    for (_, name), parameters in config.items()
  )
  ignored = _ON_TOP not in config and not reads(config, MACRO[0])
  if MACRO in config and trains and ignored:
    raise UnreadMethodError(
      f'METHOD = {config[MACRO]["value"]} is bound, and nothing here reads it, '
      'so that T5X would train every parameter. Add '
      '--gin_file=hosts/on_top_t5x.gin behind your own files, or begin with '
      'runs/finetune_t5x.gin instead of them'
    )


def reads(
  config: Mapping[tuple[str, str], Mapping[str, Any]], macro: str
) -> bool:
  """Returns whether a value in gin's configuration is a macro's.

  Args:
    config: gin's, parameters by scope and name of what they are bound to.
    macro: its name.

  Returns:
    Whether any binding reads it.

  Example:
    >>> reads({('', 'f'): {'x': 3}}, 'METHOD')
    False
  """
  return any(
    repr(reference) == f'%{macro}'
    for reference in gin_config.iterate_references(config)
  )
