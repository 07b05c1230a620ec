"""What the slices of a scanned stack would be called without the scan.

A scanned network keeps the same tensor of all its layers in one array. T5X's
scalable_t5 names it `encoder/encoder/mlp/wi/kernel`; other networks have
`encoder/layers/mlp/wi/kernel`. Slice i of either is the tensor that the same
network without the scan names `encoder/layers_i/mlp/wi/kernel`.

Which tensors are stacked, and along which axis, the caller says. Which folder
is the stack's *root*, to be replaced by `layers_i`, the paths tell:

1. a folder `layers`, if there is one;
2. else, of the folders below which every tensor is stacked, the first that has
   its parent's name, as T5X's `encoder/encoder`;
3. else the first of those folders, or, while it holds nothing but another
   folder of modules, that one.

Where that is no certain answer, there is none: stacks of different lengths in
one folder; a root of the third way that lies beside another root or holds
tensors instead of modules; slices that would take the path of a parameter that
is there already.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

_Parts = tuple[str, ...]


def slice_paths(
  shapes: Mapping[str, tuple[int, ...]], stack_axes: Mapping[str, int]
) -> dict[str, tuple[str, ...]]:
  """Returns the path of every slice of every stacked tensor.

  Args:
    shapes: shape of every parameter tensor, by path.
    stack_axes: axis along which a tensor stacks its layers, by path.

  Returns:
    One path a slice, by the stacked tensor's path; tensors whose root cannot be
    told are left out.

  Example:
    >>> shapes = {'encoder/encoder/mlp/wi/kernel': (4, 2, 8),
    ...           'encoder/encoder_norm/scale': (4,)}
    >>> slice_paths(shapes, {'encoder/encoder/mlp/wi/kernel': 1})
    ... # doctest: +NORMALIZE_WHITESPACE
    {'encoder/encoder/mlp/wi/kernel': ('encoder/layers_0/mlp/wi/kernel',
                                       'encoder/layers_1/mlp/wi/kernel')}
  """
  if not stack_axes:
    return {}
  lengths = {path: shapes[path][axis] for path, axis in stack_axes.items()}
  roots = _roots(shapes, lengths)
  named = {}
  for path, root in roots.items():
    *parents, _ = root
    rest = path.split('/')[len(root) :]
    named[path] = tuple(
      '/'.join((*parents, f'layers_{i}', *rest)) for i in range(lengths[path])
    )
  taken = Counter(path for path in shapes if path not in stack_axes)
  taken.update(path for paths in named.values() for path in paths)
  collides = {
    roots[path]
    for path, paths in named.items()
    if any(taken[each] > 1 for each in paths)
  }
  return {p: paths for p, paths in named.items() if roots[p] not in collides}


def _roots(
  shapes: Iterable[str], lengths: Mapping[str, int]
) -> dict[str, _Parts]:
  """Returns the root of every stacked tensor that has one."""
  children: dict[_Parts, set[str]] = defaultdict(set)
  # How many slices the tensors below a folder have; None for no stack.
  below: dict[_Parts, set[int | None]] = defaultdict(set)
  tensors = {tuple(path.split('/')): lengths.get(path) for path in shapes}
  for parts, length in tensors.items():
    for depth in range(len(parts)):
      children[parts[:depth]].add(parts[depth])
      below[parts[:depth]].add(length)

  def is_stack(folder: _Parts) -> bool:
    return len(below[folder]) == 1 and None not in below[folder]

  def has_modules(folder: _Parts) -> bool:
    return all((*folder, child) not in tensors for child in children[folder])

  def descended(folder: _Parts) -> _Parts:
    while len(children[folder]) == 1:
      inner = (*folder, *children[folder])
      if inner in tensors or not has_modules(inner):
        break
      folder = inner
    return folder

  certain: dict[str, _Parts] = {}
  guessed: dict[str, _Parts] = {}
  for path in lengths:
    parts = tuple(path.split('/'))
    folders = [parts[:depth] for depth in range(1, len(parts))]
    if 'layers' in parts[:-1]:
      root = parts[: parts.index('layers') + 1]
      if len(below[root] - {None}) == 1:
        certain[path] = root
      continue
    folders = [folder for folder in folders if is_stack(folder)]
    repeated = [folder for folder in folders if folder[-1:] == folder[-2:-1]]
    if repeated:
      certain[path] = repeated[0]
    elif folders and has_modules(root := descended(folders[0])):
      guessed[path] = root
  side_by_side = Counter(
    root[:-1] for root in {*certain.values(), *guessed.values()}
  )
  return certain | {
    path: root for path, root in guessed.items() if side_by_side[root[:-1]] == 1
  }
