"""Networks whose layers the schemes `module` and `module_and_layer` miss.

They know layers as `layers_0`, `layers_1` and so on. Where a network calls them
`h_0`, `block_3` or `layer/0`, the schemes would take each folder of tensors for
a module, which makes other silos, and so other budgets: an error. Tensors that
lie deep in folders without a number may or may not be a layer's: a warning.

Modules outside the layers are fine, and so are networks without layers whose
modules hold tensors: `token_embedder/embedding`, `encoder/encoder_norm/scale`,
`params/Dense_0/kernel`.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

_LAYER = re.compile(r'layers_\d+')
_NUMBERED = re.compile(r'(.*?)(\d+)')
# Folders of modules, whether or not there are layers among them.
_CONTAINERS = ('params', 'encoder', 'decoder')
# What may lie below one of them outside the layers: a/b/kernel.
_DEEPEST = 3
_SHOWN = 8

_Parts = tuple[str, ...]


class _Family(NamedTuple):
  """Folders that differ in a number alone, such as h_0 and h_1.

  Attributes:
    parents: the folders that they lie in.
    stem: their names up to the number.
  """

  parents: _Parts
  stem: str


def problem(
  scheme: str, paths: Sequence[str], rootless: Sequence[str] = ()
) -> str:
  r"""Returns why a scheme of modules does not fit a network; '' if it does.

  Args:
    scheme: 'module' or 'module_and_layer'.
    paths: of all tensors, slices of stacks under the paths that they have
      without the scan.
    rootless: paths of stacked tensors whose slices have no such path.

  Returns:
    The reason, the tensors, and rules that would do.

  Example:
    >>> print(problem('module_and_layer', ['h_0/attn/query/kernel']))
    ... # doctest: +NORMALIZE_WHITESPACE
    the silo scheme 'module_and_layer' knows layers as layers_0, layers_1, …,
    and cannot tell the modules of: h_0/attn/query/kernel. Say by rules which
    silo each parameter belongs to: SILOS = ((r'(h_\d+/[^/]+)/.+', r'\1'),) in
    gin, silo_scheme=… in Python; or choose the scheme 'tensor' or 'none'
  """
  tensors = _tensors_of_families(paths)
  unknown = {
    family: depths
    for family, depths in tensors.items()
    if max(depths.values()) >= _too_deep(scheme, family)
  }
  if not unknown and not rootless:
    return ''
  suggested = _suggested(scheme, paths, rootless, list(unknown))
  rules = ', '.join(f"(r'{a}', r'{b}')" for a, b in suggested)
  if len(suggested) == 1:
    rules += ','
  reasons = []
  if unknown:
    reasons.append(
      'knows layers as layers_0, layers_1, …, and cannot tell the modules of: '
      + _listed([path for depths in unknown.values() for path in depths])
    )
  if rootless:
    reasons.append(
      'cannot tell which folder is the stack of the layers in: '
      + _listed(rootless)
    )
  return (
    f'the silo scheme {scheme!r} {"; it ".join(reasons)}. Say by rules which '
    f'silo each parameter belongs to: SILOS = ({rules}) in gin, silo_scheme=… '
    "in Python; or choose the scheme 'tensor' or 'none'"
  )


def doubt(scheme: str, paths: Sequence[str]) -> str:
  """Returns what may be wrong with a scheme of modules; '' if nothing is.

  Args:
    scheme: 'module' or 'module_and_layer'.
    paths: as for `problem`.

  Returns:
    A sentence for a warning that names the tensors.

  Example:
    >>> layer = 'encoder/layers_0/mlp/wi/kernel'
    >>> doubt('module', [layer, 'encoder/encoder_norm/scale'])
    ''
    >>> print(doubt('module', [layer, 'head/mlp/wi/kernel'])[:63])
    the silo scheme 'module' finds no layer in: head/mlp/wi/kernel.
  """
  numbered = {
    path for depths in _tensors_of_families(paths).values() for path in depths
  }
  parts_of = {
    path: tuple(path.split('/')) for path in paths if path not in numbered
  }
  containers = {
    parts[:depth]
    for parts in parts_of.values()
    for depth in range(1, (_layer_depth(parts) or 0) + 1)
  }
  stacked, deep = [], []
  for path, parts in parts_of.items():
    if _layer_depth(parts) is not None:
      continue
    if 'layers' in parts[:-2]:
      stacked.append(path)
      continue
    start = 0
    while start < len(parts) and (
      parts[: start + 1] in containers
      or (parts[start] in _CONTAINERS and parts[start] not in parts[:start])
    ):
      start += 1
    if len(parts) - start > _DEEPEST:
      deep.append(path)
  doubts = []
  if deep:
    doubts.append(
      f'finds no layer in: {_listed(deep)}. Each folder of tensors there is a '
      'silo of its own'
    )
  if stacked and scheme == 'module_and_layer':
    doubts.append(
      f'takes for one layer what lies below `layers` in: {_listed(stacked)}'
    )
  if not doubts:
    return ''
  return (
    f'the silo scheme {scheme!r} {". It ".join(doubts)}. If that is not meant: '
    'where tensors stack layers, name the axis, '
    "optimizer.Selective.stacks = ('its logical axis',) in gin, stack_axes=… "
    'in Python; elsewhere name the silos by rules, '
    'SILOS = ((regex, template), …) in gin, silo_scheme=… in Python'
  )


def _layer_depth(parts: _Parts) -> int | None:
  """Returns where a path has the folder of a layer with modules, or None."""
  for depth, part in enumerate(parts[:-2]):
    if _LAYER.fullmatch(part):
      return depth
  return None


def _too_deep(scheme: str, family: _Family) -> int:
  """Returns from how many levels below a layer its modules are missed.

  One level is a tensor, so that the folder is a module itself. Of two, the
  upper is a module, and in a silo of its own: wrong for the scheme of modules
  in all layers alone. But below `layers/0` the schemes see one module.
  """
  if scheme == 'module' or (family.parents[-1:] == ('layers',)):
    return 2
  return 3


def _tensors_of_families(
  paths: Sequence[str],
) -> dict[_Family, dict[str, int]]:
  """Returns the tensors in numbered folders, and how deep below they lie.

  A single folder is numbered if its number is 0 or 1: h_0, not vit_l16.
  """
  numbers: dict[_Family, set[int]] = defaultdict(set)
  found: dict[str, list[tuple[_Family, int]]] = {}
  for path in paths:
    parts = tuple(path.split('/'))
    if _layer_depth(parts) is not None:
      continue
    for depth, part in enumerate(parts[:-1]):
      match = _NUMBERED.fullmatch(part)
      if match is not None and not _LAYER.fullmatch(part):
        family = _Family(parts[:depth], match[1])
        numbers[family].add(int(match[2]))
        below = len(parts) - depth - 1
        found.setdefault(path, []).append((family, below))
  tensors: dict[_Family, dict[str, int]] = defaultdict(dict)
  for path, candidates in found.items():
    for family, below in candidates:
      if len(numbers[family]) > 1 or numbers[family] <= {0, 1}:
        tensors[family][path] = below
        break
  return tensors


def _suggested(
  scheme: str,
  paths: Sequence[str],
  rootless: Sequence[str],
  families: Sequence[_Family],
) -> list[tuple[str, str]]:
  """Returns rules that cover all tensors, none without a tensor of its own."""
  slices = '{slice}' if rootless and scheme == 'module_and_layer' else ''
  rules = []
  for parents, stem in families:
    number = re.escape(stem) + r'\d+'
    where = '/'.join(map(re.escape, parents))
    if scheme == 'module_and_layer':
      layer = f'{where}/{number}' if parents else number
      rules.append((f'({layer}/[^/]+)/.+', r'\1'))
    elif parents:
      rules.append((f'({where})/{number}/([^/]+)/.+', r'\1/\2'))
    else:
      rules.append((f'{number}/([^/]+)/.+', r'\1'))
  if scheme == 'module_and_layer':
    rules.append((r'(.*layers_\d+/[^/]+)/.+', r'\1'))
  else:
    rules.append((r'(.*?)layers_\d+/([^/]+)/.+', r'\1\2'))
  rules += [
    (r'(.+)/[^/]+', rf'\1{slices}'),
    (r'([^/]+)', rf'\1{slices}'),
  ]
  used = {
    next(rule for rule in rules if re.fullmatch(rule[0], path))
    for path in (*paths, *rootless)
  }
  return [rule for rule in rules if rule in used]


def _listed(paths: Sequence[str]) -> str:
  return ', '.join(paths[:_SHOWN]) + (', …' if len(paths) > _SHOWN else '')
