"""What is fixed before the first step: silos and their exact budgets."""

import functools
import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dst_t5x.arrays.paths import named_leaves
from dst_t5x.core import silos as silos_lib
from dst_t5x.core.budgets import allocate
from dst_t5x.core.counting import Partitioning
from dst_t5x.core.methods import Method, SiloScheme
from dst_t5x.core.silos import SiloError, Silos

# Parameters of a model that no budget is too large for (count).
_LARGER_THAN_MODELS = 2**53


class Plan(NamedTuple):
  """A method applied to the parameters of one model.

  Attributes:
    method: with the length of its schedule filled in.
    silos: the partition; empty for a method that selects nothing.
    budgets: k of every silo (count).
    eligible: paths that the method may select from; None for all.
    partitioning: placement on a mesh, or None.
  """

  method: Method
  silos: Silos
  budgets: tuple[int, ...]
  eligible: frozenset[str] | None
  partitioning: Partitioning | None

  @property
  def total(self) -> int:
    """Number of parameters (count)."""
    return sum(self.silos.sizes)

  @property
  def budget(self) -> int:
    """K, the sum of the budgets (count)."""
    return sum(self.budgets)


def make(
  method: Method,
  params: Any,
  *,
  epsilon: float | None = None,
  budget: int | None = None,
  silo_scheme: SiloScheme | None = None,
  stack_axes: Mapping[str, int] = MappingProxyType({}),
  total_steps: int | None = None,
  partitioning: Partitioning | None = None,
) -> Plan:
  """Returns the plan of a method for a model.

  Args:
    method: see `methods`.
    params: pytree of arrays or shapes.
    epsilon: fraction of all parameters in (0, 1].
    budget: number of parameters (count), instead of `epsilon`.
    silo_scheme: instead of the method's own.
    stack_axes: axis along which a scanned tensor stacks its layers, by path.
    total_steps: length of the run, for schedules that last all of it.
    partitioning: placement on a mesh.

  Returns:
    The plan.

  Raises:
    SiloError: if the budget or the silos are wrong; see `silos`.
    ValueError: if a parameter is not floating, or the schedule needs the
      number of steps and does not have it.

  Example:
    >>> from dst_t5x.core import methods
    >>> plan = make(methods.dst(), {'a': jnp.ones((4, 5))}, epsilon=0.1)
    >>> plan.silos.names, plan.budgets
    (('a',), (2,))

  Source: DST, equations 1 and 2.
  """
  shapes = _shapes(params)
  scheme = method.silos if silo_scheme is None else silo_scheme
  silos = silos_lib.assign(shapes, scheme=scheme, stack_axes=stack_axes)
  eligible, budgets = _budgets(method, shapes, silos, epsilon, budget)
  if method.score is not None and max(budgets) >= 2**31:
    raise SiloError(
      f'a budget of {max(budgets)} in one silo is too large; the most is '
      f'{2**31 - 1}: use finer silos'
    )
  return Plan(
    method=_with_steps(method, total_steps),
    silos=silos,
    budgets=tuple(budgets),
    eligible=eligible,
    partitioning=partitioning,
  )


def counts(
  method: Method,
  params: Any,
  *,
  epsilon: float | None = None,
  budget: int | None = None,
) -> tuple[int, int]:
  """Returns how many parameters a method may change, and how many there are.

  They are `budget` and `total` of the plan that `make` returns, which silos and
  their stacks do not alter.

  Args:
    method: see `methods`.
    params: pytree of arrays or shapes.
    epsilon: fraction of all parameters in (0, 1].
    budget: number of parameters (count), instead of `epsilon`.

  Returns:
    Two counts.

  Raises:
    SiloError: if the budget is wrong.
    ValueError: if a parameter is not floating.

  Example:
    >>> from dst_t5x.core import methods
    >>> counts(methods.dst(), {'a': jnp.ones((4, 5))}, epsilon=0.1)
    (2, 20)
  """
  shapes = _shapes(params)
  silos = silos_lib.assign(shapes, scheme='none')
  _, budgets = _budgets(method, shapes, silos, epsilon, budget)
  return sum(budgets), sum(silos.sizes)


def check_budget(
  method: Method, *, epsilon: float | None = None, budget: int | None = None
) -> None:
  """Raises if no model could have such a budget.

  What depends on the model is checked when the plan is made.

  Args:
    method: see `core.methods`.
    epsilon: fraction of all parameters in (0, 1].
    budget: number of parameters (count), instead of `epsilon`.

  Raises:
    SiloError: if they are wrong; neither of them is not, here.

  Example:
    >>> from dst_t5x.core import methods
    >>> check_budget(methods.dst(), epsilon=0.1)
  """
  if epsilon is None and budget is None:
    return
  _check_takes_budget(method, epsilon, budget)
  if isinstance(budget, int) and budget < 1:
    raise SiloError(f'budget={budget} must be at least 1')
  allocate((_LARGER_THAN_MODELS,), epsilon=epsilon, budget=budget)


def _check_takes_budget(
  method: Method, epsilon: float | None, budget: int | None
) -> None:
  """Raises if a budget is given to a method that does not take one."""
  if epsilon is None and budget is None:
    return
  if method.score is None:
    raise SiloError(
      f'method {method.name!r} changes every parameter; it takes neither '
      f'EPSILON nor BUDGET (epsilon={epsilon!r}, budget={budget!r})'
    )
  if method.pattern is not None:
    raise SiloError(
      f'the budget of method {method.name!r} is every parameter that its '
      f'pattern matches; it takes neither EPSILON nor BUDGET '
      f'(epsilon={epsilon!r}, budget={budget!r})'
    )


def _budgets(
  method: Method,
  shapes: Mapping[str, tuple[int, ...]],
  silos: Silos,
  epsilon: float | None,
  budget: int | None,
) -> tuple[frozenset[str] | None, tuple[int, ...]]:
  """Returns the eligible paths, None for all, and k of every silo."""
  _check_takes_budget(method, epsilon, budget)
  if method.score is None:
    return None, silos.sizes
  if method.pattern is not None:
    return _matching(method.pattern, shapes, silos)
  return None, allocate(silos.sizes, epsilon=epsilon, budget=budget)


def _shapes(params: Any) -> dict[str, tuple[int, ...]]:
  leaves = named_leaves(params)
  if not leaves:
    raise ValueError('there are no parameters')
  for path, leaf in leaves.items():
    dtype = getattr(leaf, 'dtype', None)
    if dtype is None:
      raise ValueError(f'parameter {path!r} is no array but {leaf!r}')
    if not jnp.issubdtype(dtype, jnp.floating):
      raise ValueError(
        f'parameter {path!r} is {dtype}; only floating-point parameters can be '
        'tuned'
      )
    kept = jax.dtypes.canonicalize_dtype(dtype)
    if kept != dtype:
      raise ValueError(
        f'parameter {path!r} is {dtype}, which JAX would round to {kept}, so '
        'that no parameter could keep its seed value: convert the seed first, '
        'or set jax_enable_x64'
      )
  return {path: tuple(leaf.shape) for path, leaf in leaves.items()}


def _matching(
  pattern: str, shapes: Mapping[str, tuple[int, ...]], silos: Silos
) -> tuple[frozenset[str], tuple[int, ...]]:
  try:
    matches = functools.partial(re.fullmatch, re.compile(pattern))
  except re.error as error:
    raise SiloError(f'pattern {pattern!r} is no regex: {error}') from error
  eligible = frozenset(path for path in shapes if matches(path))
  if not eligible:
    raise SiloError(
      f'pattern {pattern!r} matches no parameter; there are: '
      + ', '.join(list(shapes)[:8])
      + (', …' if len(shapes) > 8 else '')
    )
  budgets = [0] * len(silos.names)
  for path in eligible:
    ids = silos.placements[path].silos
    for i in ids:
      budgets[i] += math.prod(shapes[path]) // len(ids)
  return eligible, tuple(budgets)


def _with_steps(method: Method, total_steps: int | None) -> Method:
  if method.schedule.steps is not None:
    return method
  if total_steps is None or total_steps < 1:
    raise ValueError(
      f'method {method.name!r} grows its subset over the whole run: it needs '
      f'the number of steps (total_steps, TRAIN_STEPS), not {total_steps!r}'
    )
  return method._replace(schedule=method.schedule._replace(steps=total_steps))
