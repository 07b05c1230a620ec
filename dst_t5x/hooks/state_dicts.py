"""Trees as T5X wants them, from leaves by path, and back.

In the nested dict of an optimizer's state, T5X cannot do with the empty dicts
that optax's stateless transformations leave, and takes '/' in a key for a
level. So empty nodes are left out, and levels are matched by joined names.
"""

from collections.abc import Mapping
from typing import Any

import jax
from flax import traverse_util
from flax.serialization import from_state_dict, to_state_dict

from dst_t5x.arrays.paths import named_leaves


def with_leaves(tree: Any, leaves: Mapping[str, Any]) -> Any:
  """Returns a tree of the same structure with other leaves.

  Args:
    tree: any pytree.
    leaves: by the paths of the tree's own leaves.

  Returns:
    The new tree.

  Example:
    >>> with_leaves({'a': {'b': 0}}, {'a/b': 1})
    {'a': {'b': 1}}
  """
  return jax.tree.unflatten(
    jax.tree.structure(tree), [leaves[path] for path in named_leaves(tree)]
  )


def flat(tree: Any) -> dict[str, Any]:
  """Returns the leaves of any state by joined path, without empty nodes.

  Args:
    tree: anything that flax can serialize.

  Returns:
    Dict from '/'-joined path to leaf.

  Example:
    >>> flat({'a': {'b/c': 1}, 'empty': {}})
    {'a/b/c': 1}
  """
  state = to_state_dict(tree)
  if not isinstance(state, dict):
    return {'': state}
  return dict(traverse_util.flatten_dict(state, sep='/'))


def placed(folder: str, tree: Any) -> dict[str, Any]:
  """Returns the leaves of any state by their path in a checkpoint.

  Args:
    folder: that the state has in the checkpoint.
    tree: what flax can serialize; None is no leaf.

  Returns:
    Dict from '/'-joined path to leaf.

  Example:
    >>> placed('state/a', {'b': 1}), placed('state/c', 2)
    ({'state/a/b': 1}, {'state/c': 2})
  """
  return {
    f'{folder}/{path}' if path else folder: leaf
    for path, leaf in flat(tree).items()
    if leaf is not None
  }


def placed_in(folder: str, leaves: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the leaves of one state in a checkpoint, as `flat` names them.

  Args:
    folder: that the state has in the checkpoint.
    leaves: of the whole checkpoint, by path.

  Returns:
    Dict from '/'-joined path in the state to leaf.

  Example:
    >>> placed_in('state/a', {'state/a/b': 1, 'state/ab': 2})
    {'b': 1}
  """
  return {
    path.removeprefix(folder).removeprefix('/'): leaf
    for path, leaf in leaves.items()
    if path == folder or path.startswith(f'{folder}/')
  }


def restored(tree: Any, leaves: Mapping[str, Any], *, origin: str) -> Any:
  """Returns a state whose leaves are those of the given paths.

  Args:
    tree: a state of the wanted structure.
    leaves: from `flat`, of the same structure.
    origin: where they came from, for the error.

  Returns:
    The state.

  Raises:
    ValueError: if a path is missing or has no place.

  Example:
    >>> restored({'a': {'b': 0}}, {'a/b': 1}, origin='a dict')
    {'a': {'b': 1}}
  """
  state = to_state_dict(tree)
  if not isinstance(state, dict):
    return from_state_dict(tree, leaves[''])
  wanted = traverse_util.flatten_dict(state, keep_empty_nodes=True)
  names = {path: '/'.join(path) for path in wanted}
  empty = {
    path for path, leaf in wanted.items() if leaf is traverse_util.empty_node
  }
  missing = sorted(
    name
    for path, name in names.items()
    if path not in empty and name not in leaves
  )
  extra = sorted(set(leaves) - set(names.values()))
  if missing or extra:
    raise ValueError(
      f'{origin} holds another optimizer state: '
      + '; '.join(
        f'{verb} {", ".join(names[:4])}{", …" if len(names) > 4 else ""}'
        for verb, names in (('it lacks', missing), ('it also holds', extra))
        if names
      )
      + '. Resume with the inner optimizer that the run began with'
    )
  filled = {
    path: leaf if path in empty else leaves[names[path]]
    for path, leaf in wanted.items()
  }
  return from_state_dict(tree, traverse_util.unflatten_dict(filled))


def of_optimizer(target: Any, state: Any) -> dict[str, Any]:
  """Returns target and state of an optimizer as T5X saves them."""
  nested = traverse_util.unflatten_dict(flat(state), sep='/')
  return {'target': to_state_dict(target), 'state': nested}


def restore_optimizer(target: Any, state: Any, state_dict: Any) -> Any:
  """Returns target and state from what `of_optimizer` returned."""
  leaves = traverse_util.flatten_dict(state_dict['state'], sep='/')
  return (
    from_state_dict(target, state_dict['target']),
    restored(state, leaves, origin='the checkpoint'),
  )
