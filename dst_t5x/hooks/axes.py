"""Axes by path: of parameters, of a method's state, and of scanned stacks.

T5X hands them around as trees. The axes of a parameter come from the model;
whatever has a parameter's path and shape gets that parameter's axes, whatever
the type of the state that holds it. All else is replicated.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

from dst_t5x.arrays import known_names
from dst_t5x.arrays.paths import named_leaves

STACKS = ('layers',)


def named(tree: Any) -> dict[str, Any]:
  """Returns the logical axes of parameters by path.

  Args:
    tree: as T5X hands them around, a (frozen) dict of axes.

  Returns:
    Dict from path to axes.

  Example:
    >>> named({'a': {'w': PartitionSpec('embed')}})
    {'a/w': P('embed',)}
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_axes)
  return {
    jax.tree_util.keystr(key, simple=True, separator='/'): leaf
    for key, leaf in leaves
  }


def specs(mesh_axes: Any) -> dict[str, PartitionSpec]:
  """Returns how parameters are partitioned, by path.

  Args:
    mesh_axes: T5X's, of the parameters; None is a whole parameter.

  Returns:
    Dict from path to partition.

  Example:
    >>> specs({'a': {'w': None}})
    {'a/w': P()}
  """
  return {
    path: PartitionSpec() if spec is None else spec
    for path, spec in named(mesh_axes).items()
  }


def of_state(
  state: Any, shapes: Mapping[str, tuple[int, ...]], axes: Mapping[str, Any]
) -> Any:
  """Returns the logical axes of every leaf of an optimizer's state.

  A leaf belongs to a parameter if its path ends in the parameter's and it has
  the parameter's shape. Of several such parameters the longest path wins.

  Args:
    state: any pytree of arrays or shapes.
    shapes: of the parameters, by path.
    axes: logical axes of the parameters, by path.

  Returns:
    The same tree with axes in place of leaves, None for replicated ones.

  Example:
    >>> import numpy as np
    >>> state = {'mu': {'a': {'w': np.ones((2, 3))}}, 'count': np.int32(0)}
    >>> of_state(state, {'a/w': (2, 3)}, {'a/w': ('embed', 'mlp')})
    {'count': None, 'mu': {'a': {'w': ('embed', 'mlp')}}}
  """

  def axes_of(path: str, leaf: Any) -> Any:
    parts = path.split('/')
    for start in range(len(parts)):
      name = '/'.join(parts[start:])
      if name in shapes and tuple(leaf.shape) == tuple(shapes[name]):
        return axes[name]
    return None

  leaves = named_leaves(state)
  return jax.tree.unflatten(
    jax.tree.structure(state),
    [axes_of(path, leaf) for path, leaf in leaves.items()],
  )


def stacks(
  axes: Mapping[str, Sequence[str | None]], names: Sequence[str] = STACKS
) -> dict[str, int]:
  """Returns the axis along which a scanned parameter stacks its layers.

  Args:
    axes: logical axes of the parameters, by path.
    names: logical axes that count layers.

  Returns:
    The number of the axis, by path; parameters that are no stacks are left out.

  Raises:
    ValueError: if a parameter has two such axes.

  Example:
    >>> stacks({'a/w': ('embed', 'layers', 'mlp'), 'b/w': ('embed',)})
    {'a/w': 1}
  """
  stacked = {}
  for path, logical in axes.items():
    dimensions = [d for d, name in enumerate(logical) if name in names]
    if len(dimensions) > 1:
      raise ValueError(
        f'parameter {path!r} stacks layers along {len(dimensions)} axes '
        f'({tuple(logical)}); silos know one'
      )
    if dimensions:
      stacked[path] = dimensions[0]
  return stacked


def check_rules(
  axes: Mapping[str, Sequence[str | None]],
  rules: Sequence[tuple[str, Any]] | None,
  *,
  partitioner: str,
) -> None:
  """Raises if the partitioner has no rule for an axis of a parameter.

  T5X itself would replicate such an axis without a word.

  Args:
    axes: logical axes of the parameters, by path.
    rules: the partitioner's, pairs of logical axis and mesh axis.
    partitioner: its name, for the error.

  Raises:
    ValueError: naming the axis, a parameter that has it and the known axes.

  Example:
    >>> check_rules({'a/w': ('embed',)}, [('embed', None)], partitioner='P')
  """
  if rules is None:
    raise ValueError(
      f'the partitioner {partitioner} has no logical axis rules, so that '
      'nothing says where parameters lie; use '
      'dst_t5x.hooks.partitioning.Partitioner or '
      't5x.partitioning.PjitPartitioner'
    )
  known = {name for name, _ in rules}
  for path, logical in axes.items():
    for name in logical:
      if name is not None and name not in known:
        raise ValueError(
          f'parameter {path!r} has the logical axis {name!r}, for which the '
          f'partitioner {partitioner} has no rule'
          f'{known_names.hint(str(name), sorted(known))}; it knows '
          f'{", ".join(sorted(known))}. Add it with '
          f'partitioning.standard_logical_axis_rules.additional_rules = '
          f"[('{name}', None)]"
        )


def _is_axes(leaf: Any) -> bool:
  """Returns whether a leaf of a tree of logical axes is one parameter's."""
  return leaf is None or isinstance(leaf, (tuple, PartitionSpec))
