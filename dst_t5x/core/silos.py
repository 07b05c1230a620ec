"""Which silo every parameter belongs to, and how many each may change.

A silo is a named set of parameters with its own exact budget. Rules are
(regex, template) pairs over parameter paths: the first whole match wins, and
its template, with the regex's groups filled in, names the silo.

A scanned stack keeps the same tensor of all layers in one array. Where the
template holds `{slice}`, every slice along the stack's axis is a silo of its
own; elsewhere `{slice}` vanishes.
"""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from types import MappingProxyType
from typing import NamedTuple

from dst_t5x.arrays import known_names

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
    names: one name a silo, in the order in which paths first reach them.
    sizes: how many parameters each silo holds (count).
    placements: the place of every parameter, by path.
  """

  names: tuple[str, ...]
  sizes: tuple[int, ...]
  placements: Mapping[str, Placement]


_OUTSIDE_LAYERS = (
  Rule(r'(.+)/[^/]+', r'\1{slice}'),
  Rule(r'([^/]+)', r'\1{slice}'),
)

# The named schemes of the paper's section 2 and appendix A. Encoder and
# decoder are different modules throughout.
SCHEMES: Mapping[str, tuple[Rule, ...]] = MappingProxyType(
  {
    'none': (Rule(r'.+', 'all'),),
    'module': (
      Rule(r'(.*?)layers(?:_\d+)?/([^/]+)/.+', r'\1\2'),
      Rule(r'(.+)/[^/]+', r'\1'),
      Rule(r'([^/]+)', r'\1'),
    ),
    'module_and_layer': (
      Rule(r'(.*?layers(?:_\d+)?/[^/]+)/.+', r'\1{slice}'),
      *_OUTSIDE_LAYERS,
    ),
    'tensor': (Rule(r'(.+)', r'\1{slice}'),),
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
    (Rule(pattern='(.+)', template='\\1{slice}'),)

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
    The silos. Their order is that of the paths.

  Raises:
    SiloError: if a parameter is covered by no rule, a user's rule matches no
      parameter, a template is wrong, or a stack axis names an unknown
      parameter or axis.

  Example:
    >>> shapes = {'encoder/layers_0/mlp/wi/kernel': (2, 3),
    ...           'encoder/layers_0/mlp/wo/kernel': (3, 2)}
    >>> assign(shapes).names, assign(shapes).sizes
    (('encoder/layers_0/mlp',), (12,))

  Source: DST, section 2.
  """
  ordered = rules(scheme)
  _check_stacks(shapes, stack_axes)
  ids: dict[str, int] = {}
  sizes: list[int] = []
  placements: dict[str, Placement] = {}
  uncovered: list[str] = []
  used: set[Rule] = set()
  for path, shape in shapes.items():
    match = _first_match(ordered, path)
    if match is None:
      uncovered.append(path)
      continue
    rule, template = match
    used.add(rule)
    axis = stack_axes.get(path) if '{slice}' in template else None
    names = (
      [template.replace('{slice}', '')]
      if axis is None
      else [template.replace('{slice}', f'[{i}]') for i in range(shape[axis])]
    )
    size = math.prod(shape) // max(len(names), 1)
    for name in names:
      if name not in ids:
        ids[name] = len(sizes)
        sizes.append(0)
      sizes[ids[name]] += size
    placements[path] = Placement(tuple(ids[n] for n in names), axis)
    _LOG.debug('silo of %s: %s (rule %r)', path, names[0], rule.pattern)
  if uncovered:
    raise SiloError(
      'no silo rule covers: '
      + ', '.join(uncovered)
      + '; add a last rule such as (r".+", "rest")'
    )
  if not isinstance(scheme, str):
    _check_used(ordered, used, shapes)
  return Silos(tuple(ids), tuple(sizes), MappingProxyType(placements))


def allocate(
  sizes: Sequence[int],
  *,
  epsilon: float | None = None,
  budget: int | None = None,
) -> tuple[int, ...]:
  """Returns how many parameters of each silo may differ from the seed.

  k_S = K |S| / n by largest remainder, with K = round(ε n): every k_S is its
  quota rounded up or down, and they sum to exactly K. A small silo may get 0.

  Args:
    sizes: how many parameters each silo holds (count).
    epsilon: fraction of all parameters in (0, 1].
    budget: K itself (count), from 1 to n; instead of `epsilon`.

  Returns:
    One count a silo.

  Raises:
    SiloError: if both or neither of epsilon and budget are given, or either
      is out of range.

  Example:
    >>> allocate([60, 30, 10], epsilon=0.05)
    (3, 2, 0)

  Source: DST, equation 1; largest remainder makes its sum exact.
  """
  total = sum(sizes)
  if not total:
    raise SiloError('there are no parameters to share a budget')
  if (epsilon is None) == (budget is None):
    raise SiloError(
      'give either EPSILON (a fraction) or BUDGET (a count), not '
      + ('both' if epsilon is not None else 'neither')
      + f': epsilon={epsilon!r}, budget={budget!r}'
    )
  if epsilon is not None:
    real = isinstance(epsilon, Real) and not isinstance(epsilon, bool)
    if not real or not 0.0 < epsilon <= 1.0:
      raise SiloError(
        f'epsilon={epsilon!r} must be a fraction in (0, 1]; a count is BUDGET'
      )
    count = round(epsilon * total)
    if not count:
      raise SiloError(
        f'epsilon={epsilon!r} of {total} parameters rounds to 0; the smallest '
        f'that selects anything is about {1 / total:.2g}'
      )
  else:
    if not isinstance(budget, Integral) or isinstance(budget, bool):
      raise SiloError(f'budget={budget!r} must be a whole number')
    if not 1 <= budget <= total:
      raise SiloError(
        f'budget={budget} must be from 1 to {total}, the number of parameters'
      )
    count = int(budget)
  floors = [count * size // total for size in sizes]
  remainders = [count * size % total for size in sizes]
  # Ties go to the earlier silo, so the result depends on nothing else.
  order = sorted(range(len(sizes)), key=lambda i: (-remainders[i], i))
  for i in order[: count - sum(floors)]:
    floors[i] += 1
  return tuple(floors)


def _first_match(
  ordered: tuple[Rule, ...], path: str
) -> tuple[Rule, str] | None:
  for rule in ordered:
    match = re.fullmatch(rule.pattern, path)
    if match is not None:
      try:
        return rule, match.expand(rule.template)
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
