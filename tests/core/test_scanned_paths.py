"""The same network scanned and not: the same silos, order and budgets."""

import math

import hypothesis
import pytest
from hypothesis import strategies as st

from dst_t5x.core import scanned_paths, silos
from dst_t5x.core.budgets import allocate

SCHEMES = ('none', 'module', 'module_and_layer', 'tensor')
LAYER = {
  'attention/query/kernel': (6, 4),
  'attention/out/kernel': (4, 6),
  'mlp/wi_0/kernel': (6, 9),
  'mlp/wo/kernel': (9, 6),
  'pre_mlp_layer_norm/scale': (6,),
  'relpos_bias/rel_embedding': (2, 5),
}
OUTSIDE = {
  'token_embedder/embedding': (11, 6),
  'decoder/logits_dense/kernel': (6, 11),
  'decoder/decoder_norm/scale': (6,),
  'encoder/encoder_norm/scale': (6,),
}
# Where scalable_t5 and other networks put the layers of a stack.
ROOTS = {'layers': '{0}/layers', 't5x': '{0}/{0}'}


def network(lengths, roots, outside):
  """Shapes and stack axes, in the order in which JAX sorts a tree's keys.

  Args:
    lengths: how many layers every stack has.
    roots: folder of the scanned stacks; the others are not scanned.
    outside: tensors outside the layers.
  """
  shapes, axes = {path: OUTSIDE[path] for path in outside}, {}
  for stack, length in lengths.items():
    for path, shape in LAYER.items():
      if stack in roots:
        name = f'{roots[stack].format(stack)}/{path}'
        axes[name] = min(1, len(shape))
        shapes[name] = (*shape[:1], length, *shape[1:])
      else:
        for i in range(length):
          shapes[f'{stack}/layers_{i}/{path}'] = shape
  order = sorted(shapes, key=lambda path: path.split('/'))
  return {path: shapes[path] for path in order}, axes


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
  st.dictionaries(
    st.sampled_from(['encoder', 'decoder']), st.integers(1, 12), min_size=1
  ),
  st.dictionaries(
    st.sampled_from(['encoder', 'decoder']), st.sampled_from(sorted(ROOTS))
  ),
  st.sets(st.sampled_from(sorted(OUTSIDE)), min_size=1),
  st.floats(0.001, 0.9),
)
def test_stacking_changes_neither_silos_nor_budgets(
  lengths, kinds, outside, epsilon
):
  roots = {stack: ROOTS[kind] for stack, kind in kinds.items()}
  plain, _ = network(lengths, {}, outside)
  scanned, axes = network(lengths, roots, outside)
  for scheme in SCHEMES:
    a = silos.assign(plain, scheme=scheme)
    b = silos.assign(scanned, scheme=scheme, stack_axes=axes)
    assert a.names == b.names
    assert a.sizes == b.sizes
    # Largest remainder breaks ties by the order of the silos.
    count = max(1, round(epsilon * sum(a.sizes)))
    assert allocate(a.sizes, budget=count) == allocate(b.sizes, budget=count)
    # And every slice is in the silo in which its tensor is.
    slices = scanned_paths.slice_paths(scanned, axes)
    for path, place in b.placements.items():
      names = slices.get(path, (path,))
      whole = place.axis is None
      wanted = [a.placements[name].silos[0] for name in names]
      assert wanted == list(place.silos * len(names) if whole else place.silos)


def test_layers_are_sorted_as_text():
  shapes, axes = network({'encoder': 12}, {'encoder': ROOTS['t5x']}, ())
  shapes['token_embedder/embedding'] = (3, 3)
  found = silos.assign(shapes, stack_axes=axes)
  order = list(dict.fromkeys(name.split('/')[1] for name in found.names[:-1]))
  assert order[:5] == [f'layers_{i}' for i in (0, 1, 10, 11, 2)]
  place = found.placements['encoder/encoder/mlp/wo/kernel']
  assert found.names[place.silos[10]] == 'encoder/layers_10/mlp'
  assert math.prod(shapes['encoder/encoder/mlp/wo/kernel']) == 12 * 54


@pytest.mark.parametrize(
  'stacked, others, root',
  [
    # T5X's scalable_t5, with a norm beside the stack and without.
    ('e/e/mlp/wi e/e/attention/q', 'e/norm/scale', 'e/e'),
    ('e/e/mlp/wi e/e/attention/q', 'embedder/x', 'e/e'),
    ('e/e/mlp/wi e/e/mlp/wo', 'embedder/x', 'e/e'),
    # Both stacks below one folder without a tensor of its own.
    ('m/e/e/mlp/wi m/d/d/mlp/wi', 'embedder/x', 'm/e/e'),
    # `layers` decides, whatever lies beside.
    ('e/layers/mlp/wi', 'e/layers/shared/w', 'e/layers'),
    ('layers/kernel', 'scale', 'layers'),
    # Other names: the first folder that is all stack, or the one folder in it.
    ('d/blocks/mlp/wi d/blocks/norm/scale', 'd/norm/scale', 'd/blocks'),
    ('d/blocks/mlp/wi d/blocks/norm/scale', 'embedder/x', 'd/blocks'),
    # None of two side by side, of a folder of tensors, of a tensor alone,
    ('m/mlp/wi/kernel m/attention/q/kernel', 'm/norm/scale', None),
    ('mlp/wi mlp/wo', 'norm/scale', None),
    ('w', 'norm/scale', None),
    # of different lengths,
    ('m/a/mlp/wi m/long/mlp/wi', 'norm/scale', None),
    ('m/layers/mlp/wi m/layers/long/scale', 'norm/scale', None),
    # or of slices whose name another parameter has.
    ('e/e/mlp/wi', 'e/layers_1/mlp/wi', None),
  ],
)
def test_roots(stacked, others, root):
  shapes = {path: (3 if 'long' in path else 2,) for path in stacked.split()}
  axes = dict.fromkeys(shapes, 0)
  shapes |= dict.fromkeys(others.split(), (2,))
  slices = scanned_paths.slice_paths(shapes, axes)
  first = next(iter(axes))
  if root is None:
    assert not slices
  else:
    assert set(slices) == set(axes)
    parent = root.rpartition('/')[0]
    assert slices[first] == tuple(
      f'{parent}/layers_{i}{first.removeprefix(root)}'.removeprefix('/')
      for i in range(2)
    )
