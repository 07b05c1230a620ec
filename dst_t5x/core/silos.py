"""Which silo every parameter belongs to.

A silo is a named set of parameters with a budget of its own, which `budgets`
shares out. Rules are (regex, template) pairs over parameter paths: the first
whole match wins, and its template, with the regex's groups filled in, names the
silo.

A scanned stack keeps the same tensor of all layers in one array. Every slice of
it goes where the tensor goes of which it is a part in the same network without
the scan, so that silos, their order and their budgets are the same with the
scan as without: slice 1 of `encoder/encoder/mlp/wi/kernel` belongs to the silo
`encoder/layers_1/mlp`. `scanned_paths` tells the paths of slices.

A rule of the user's is tried on that path, `encoder/layers_1/mlp/wi/kernel`,
and, where it does not match, on that of the whole stack,
`encoder/encoder/mlp/wi/kernel`. Its template may hold `{slice}`, which becomes
`[1]` for slice 1 of a stack and vanishes elsewhere.

The named schemes know layers as `layers_0`, `layers_1` and so on, and modules
as the folders in them. `unknown_layers` refuses networks that call them
otherwise.
"""

import functools
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from dst_t5x.arrays import known_names
from dst_t5x.core import scanned_paths, unknown_layers

_LOG = logging.getLogger(__name__)


class SiloError(ValueError):
  """A silo rule, a budget or a parameter's place in the silos is wrong."""


class Rule(NamedTuple):
  """Sends every path that `pattern` matches whole to the silo `template`."""

  pattern: str
  template: str


class Placement(NamedTuple):
  """Where one parameter tensor lies.

  Attributes:
    silos: indices into `Silos.names`: one, or one for every slice of a stack.
    axis: the stack's axis, or None if the whole tensor is in one silo.
  """

  silos: tuple[int, ...]
  axis: int | None


class Silos(NamedTuple):
  """A partition of all parameters.

  Attributes:
    names: one name a silo, in the order in which the paths first reach them,
      slices of stacks under their paths without the scan.
    sizes: how many parameters each silo holds (count).
    placements: the place of every parameter, by path.
  """

  names: tuple[str, ...]
  sizes: tuple[int, ...]
  placements: Mapping[str, Placement]


_OUTSIDE_LAYERS = (
  Rule(r'(.+)/[^/]+', r'\1'),
  Rule(r'([^/]+)', r'\1'),
)

# The named schemes of the paper's section 2 and appendix A. Encoder and
# decoder are different modules throughout.
SCHEMES: Mapping[str, tuple[Rule, ...]] = MappingProxyType(
  {
    'none': (Rule(r'.+', 'all'),),
    'module': (
      Rule(r'(.*?)layers(?:_\d+)?/([^/]+)/.+', r'\1\2'),
      *_OUTSIDE_LAYERS,
    ),
    'module_and_layer': (
      Rule(r'(.*?layers(?:_\d+)?/[^/]+)/.+', r'\1'),
      *_OUTSIDE_LAYERS,
    ),
    'tensor': (Rule(r'(.+)', r'\1'),),
  }
)


def rules(scheme: str | Sequence[Rule | tuple[str, str]]) -> tuple[Rule, ...]:
  r"""Returns the rules of a named scheme, or a user's rules, checked.

  Args:
    scheme: 'none', 'module', 'module_and_layer', 'tensor', or a sequence of
      (regex, template) pairs.

  Returns:
    The rules, in order.

  Raises:
    SiloError: if the name is unknown, a rule is no pair of strings, a regex
      does not compile, or there is no rule.

  Example:
    >>> rules('tensor')
    (Rule(pattern='(.+)', template='\\1'),)

  Source: DST, section 2 and appendix A.
  """
  if isinstance(scheme, str):
    if scheme not in SCHEMES:
      raise SiloError(
        f'unknown silo scheme {scheme!r}{known_names.hint(scheme, SCHEMES)}; '
        f'known: {", ".join(SCHEMES)}, or (regex, template) pairs'
      )
    return SCHEMES[scheme]
  checked = []
  for rule in scheme:
    try:
      if isinstance(rule, str):
        raise TypeError('a string is no pair')
      pattern, template = rule
      if not isinstance(pattern, str) or not isinstance(template, str):
        raise TypeError('both must be strings')
      re.compile(pattern)
    except (TypeError, ValueError, re.error) as error:
      raise SiloError(
        f'silo rule {rule!r} must be a (regex, template) pair: {error}'
      ) from error
    checked.append(Rule(pattern, template))
  if not checked:
    raise SiloError('silo rules are empty; (r".+", "all") puts all in one silo')
  return tuple(checked)


def assign(
  shapes: Mapping[str, tuple[int, ...]],
  *,
  scheme: str | Sequence[Rule | tuple[str, str]] = 'module_and_layer',
  stack_axes: Mapping[str, int] = MappingProxyType({}),
) -> Silos:
  """Returns the silo of every parameter.

  Args:
    shapes: shape of every parameter tensor, by path.
    scheme: a scheme's name or a user's rules; see `rules`.
    stack_axes: axis along which a scanned tensor stacks its layers, by path.

  Returns:
    The silos. Their order is that of the paths, as JAX sorts them where a
    tensor is stacked.

  Raises:
    SiloError: if a parameter is covered by no rule, a user's rule matches no
      parameter, a template is wrong, a scheme of modules does not know the
      network's layers, or a stack axis names an unknown parameter or axis.

  Example:
    >>> shapes = {'encoder/layers_0/mlp/wi/kernel': (2, 3),
    ...           'encoder/layers_0/mlp/wo/kernel': (3, 2)}
    >>> assign(shapes).names, assign(shapes).sizes
    (('encoder/layers_0/mlp',), (12,))

    The same for two layers that are scanned:

    >>> shapes = {'encoder/encoder/mlp/wi/kernel': (2, 2, 3),
    ...           'encoder/encoder/mlp/wo/kernel': (3, 2, 2),
    ...           'encoder/encoder_norm/scale': (2,)}
    >>> stacks = {path: 1 for path in shapes if 'mlp' in path}
    >>> assign(shapes, stack_axes=stacks).names
    ('encoder/encoder_norm', 'encoder/layers_0/mlp', 'encoder/layers_1/mlp')

  Source: DST, section 2.
  """
  ordered = rules(scheme)
  _check_stacks(shapes, stack_axes)
  slices = scanned_paths.slice_paths(shapes, stack_axes)
  if isinstance(scheme, str):
    _check_layers(scheme, shapes, stack_axes, slices)
  parts = _parts(shapes, stack_axes, slices)
  if isinstance(scheme, str):
    parts = [part._replace(names=(part.name,)) for part in parts]
  matches: list[_Match] = []
  uncovered: dict[str, None] = {}
  for part in parts:
    match = _first_match(ordered, part.names)
    if match is None:
      uncovered[part.path] = None
    else:
      index = '' if part.number is None else f'[{part.number}]'
      silo = match.silo.replace('{slice}', index)
      matches.append(match._replace(silo=silo))
  if uncovered:
    raise SiloError(
      'no silo rule covers: '
      + ', '.join(uncovered)
      + '; add a last rule such as (r".+", "rest")'
    )
  if not isinstance(scheme, str):
    _check_used(ordered, {match.rule for match in matches}, shapes)
  ids: dict[str, int] = {}
  sizes: list[int] = []
  members: dict[str, dict[int, int]] = {path: {} for path in shapes}
  for part, match in zip(parts, matches, strict=True):
    number = ids.setdefault(match.silo, len(ids))
    if number == len(sizes):
      sizes.append(0)
    sizes[number] += part.size
    members[part.path][part.number or 0] = number
    _LOG.debug(
      'silo of %s: %s (rule %r)', part.name, match.silo, match.rule.pattern
    )
  return Silos(
    tuple(ids),
    tuple(sizes),
    MappingProxyType(
      {p: _placement(each, stack_axes.get(p)) for p, each in members.items()}
    ),
  )


def module_of(path: str) -> str:
  """Returns the module of a parameter, as far as its path alone tells.

  It is the silo in the scheme 'module'. Nothing is refused, and T5X's own names
  of scanned stacks are known without their axes.

  Args:
    path: of the parameter.

  Returns:
    The module, all layers of it together.

  Example:
    >>> module_of('encoder/layers_3/mlp/wi/kernel')
    'encoder/mlp'
    >>> module_of('encoder/encoder/mlp/wi/kernel')
    'encoder/mlp'
  """
  scanned = re.fullmatch(r'((?:.+/)?)(encoder|decoder)/\2/([^/]+/.+)', path)
  if scanned is not None:
    path = scanned.expand(r'\1\2/layers/\3')
  match = _first_match(SCHEMES['module'], (path,))
  assert match is not None  # its last rules match every path
  return match.silo


class _Part(NamedTuple):
  """A tensor, or one slice of a stack.

  Attributes:
    path: of the tensor.
    number: which slice, or None for a whole tensor.
    size: how many parameters it holds (count).
    names: what rules are tried on, in this order.
  """

  path: str
  number: int | None
  size: int
  names: tuple[str, ...]

  @property
  def name(self) -> str:
    """Returns what no other part is called: `[i]` if nothing else tells."""
    if self.number is None or self.names[0] != self.path:
      return self.names[0]
    return f'{self.path}[{self.number}]'


class _Match(NamedTuple):
  """The first rule that matches, and the silo that its template names."""

  rule: Rule
  silo: str


def _parts(
  shapes: Mapping[str, tuple[int, ...]],
  stack_axes: Mapping[str, int],
  slices: Mapping[str, tuple[str, ...]],
) -> list[_Part]:
  """Returns all parts in the order that they have without the scan."""
  parts = []
  for path, shape in shapes.items():
    size = math.prod(shape)
    if path not in stack_axes:
      parts.append(_Part(path, None, size, (path,)))
      continue
    number = shape[stack_axes[path]]
    names = slices.get(path)
    parts += [
      _Part(path, i, size // number, (names[i], path) if names else (path,))
      for i in range(number)
    ]
  if stack_axes:  # as JAX sorts the keys of dicts, folder by folder
    parts.sort(key=lambda part: (part.names[0].split('/'), part.number or 0))
  return parts


def _check_layers(
  scheme: str,
  shapes: Mapping[str, tuple[int, ...]],
  stack_axes: Mapping[str, int],
  slices: Mapping[str, tuple[str, ...]],
) -> None:
  """Raises, or warns, where the schemes of modules do not know the layers."""
  if scheme not in ('module', 'module_and_layer'):
    return
  paths = [path for path in shapes if path not in stack_axes]
  paths += [name for names in slices.values() for name in names]
  problem = unknown_layers.problem(
    scheme, paths, [path for path in stack_axes if path not in slices]
  )
  if problem:
    raise SiloError(problem)
  doubt = unknown_layers.doubt(scheme, paths)
  if doubt:
    _warn_once(doubt)


@functools.lru_cache(maxsize=64)
def _warn_once(text: str) -> None:
  """Warns; a plan is made at every trace and every save of a run."""
  _LOG.warning('%s', text)


def _placement(numbers: Mapping[int, int], axis: int | None) -> Placement:
  """Returns the place of a tensor whose slices are in silos of some numbers."""
  silos = tuple(numbers[i] for i in range(len(numbers)))
  if len(set(silos)) == 1:
    return Placement(silos[:1], None)
  return Placement(silos, axis)


def _first_match(
  ordered: tuple[Rule, ...], names: Iterable[str]
) -> _Match | None:
  for rule in ordered:
    for name in names:
      match = re.fullmatch(rule.pattern, name)
      if match is None:
        continue
      try:
        return _Match(rule, match.expand(rule.template))
      except (re.error, IndexError) as error:
        raise SiloError(
          f'template {rule.template!r} of silo rule {rule.pattern!r} does not '
          f'fit its regex: {error}'
        ) from error
  return None


def _check_stacks(
  shapes: Mapping[str, tuple[int, ...]], stack_axes: Mapping[str, int]
) -> None:
  for path, axis in stack_axes.items():
    if path not in shapes:
      raise SiloError(
        f'stack axis given for unknown parameter {path!r}'
        f'{known_names.hint(path, shapes)}'
      )
    if not 0 <= axis < len(shapes[path]):
      raise SiloError(
        f'stack axis {axis} of {path!r} is out of range for shape '
        f'{shapes[path]}'
      )
    if not shapes[path][axis]:
      raise SiloError(f'{path!r} stacks no layers: shape {shapes[path]}')


def _check_used(
  ordered: tuple[Rule, ...],
  used: set[Rule],
  shapes: Mapping[str, tuple[int, ...]],
) -> None:
  for rule in ordered:
    if rule not in used:
      raise SiloError(
        f'silo rule {rule.pattern!r} matched no parameter that an earlier rule '
        f'left{known_names.hint(rule.pattern, shapes)}'
      )
