"""Networks whose layers the schemes of modules do not know are not silent."""

import logging
import re

import pytest

from dst_t5x.core import silos, unknown_layers
from dst_t5x.core.silos import SiloError


def shapes_of(text):
  return dict.fromkeys(text.split(), (2, 3))


def rules_in(message):
  """The rules that an error suggests, as gin would read them."""
  (found,) = re.findall(r'SILOS = (\(.*\)) in gin', str(message))
  return eval(found, {'__builtins__': {}})


UNKNOWN = {
  'h_0/attn/q/w h_0/attn/out/w h_1/attn/q/w h_1/ln/scale wte': {
    'module_and_layer': {'h_0/attn', 'h_1/attn', 'h_1/ln', 'wte'},
    'module': {'attn', 'ln', 'wte'},
  },
  'transformer/h_0/attn/query/kernel transformer/h_0/scale embed/w': {
    'module_and_layer': {'transformer/h_0/attn', 'transformer/h_0', 'embed'},
    'module': {'transformer/attn', 'transformer/h_0', 'embed'},
  },
  'blocks/0/attn/q/w blocks/1/attn/q/w e/layers_0/mlp/wi/kernel': {
    'module_and_layer': {'blocks/0/attn', 'blocks/1/attn', 'e/layers_0/mlp'},
    'module': {'blocks/attn', 'e/mlp'},
  },
  # The schemes would take the whole layer for a module.
  'layers/0/attn/w layers/0/mlp/w layers/1/attn/w': {
    'module_and_layer': {'layers/0/attn', 'layers/0/mlp', 'layers/1/attn'},
    'module': {'layers/attn', 'layers/mlp'},
  },
  # A number in the name of the model is no layer's.
  'vit_l16/encoderblock_0/Mlp_1/Dense_0/kernel vit_l16/head/kernel': {
    'module_and_layer': {'vit_l16/encoderblock_0/Mlp_1', 'vit_l16/head'},
    'module': {'vit_l16/Mlp_1', 'vit_l16/head'},
  },
}


@pytest.mark.parametrize('scheme', ['module_and_layer', 'module'])
@pytest.mark.parametrize('text', UNKNOWN)
def test_layers_of_other_names_are_refused_with_rules_that_work(text, scheme):
  shapes = shapes_of(text)
  with pytest.raises(SiloError, match='cannot tell the modules of') as raised:
    silos.assign(shapes, scheme=scheme)
  assert text.split()[0] in str(raised.value)
  suggested = silos.assign(shapes, scheme=rules_in(raised.value))
  assert set(suggested.names) == UNKNOWN[text][scheme]
  for other in ('tensor', 'none'):
    silos.assign(shapes, scheme=other)


@pytest.mark.parametrize(
  'scheme, names',
  [
    ('module_and_layer', 'm/attn[0] m/attn[1] m/mlp[0] m/mlp[1] m/norm'),
    ('module', 'm/attn m/mlp m/norm'),
  ],
)
def test_a_stack_without_a_root_is_refused(scheme, names):
  shapes = shapes_of('m/attn/q m/mlp/wi m/norm/scale')
  axes = {'m/attn/q': 0, 'm/mlp/wi': 0}
  with pytest.raises(
    SiloError, match='which folder is the stack .* in: m/attn/q, m/mlp/wi'
  ) as raised:
    silos.assign(shapes, scheme=scheme, stack_axes=axes)
  suggested = rules_in(raised.value)
  found = silos.assign(shapes, scheme=suggested, stack_axes=axes)
  assert ' '.join(found.names) == names


@pytest.mark.parametrize(
  'text, warned, quiet',
  [
    (
      'encoder/layers_0/mlp/wi/kernel head/mlp/wi/kernel head/norm/scale',
      ['head/mlp/wi/kernel'],
      ['head/norm', 'encoder/'],
    ),
    # A scanned stack of T5X without its axes.
    (
      'encoder/encoder/mlp/wi/kernel encoder/encoder_norm/scale',
      ['encoder/encoder/mlp/wi/kernel', 'stack_axes='],
      ['encoder_norm'],
    ),
    (
      'encoder/layers/mlp/wi/kernel encoder/encoder_norm/scale',
      ['encoder/layers/mlp/wi/kernel', 'stack_axes='],
      ['encoder_norm'],
    ),
  ],
)
def test_deep_tensors_outside_the_layers_are_warned_of_once(
  text, warned, quiet, caplog
):
  silos._warn_once.cache_clear()
  with caplog.at_level(logging.WARNING):
    silos.assign(shapes_of(text))
    silos.assign(shapes_of(text))
  (record,) = caplog.records
  for words in warned:
    assert words in record.getMessage()
  for words in quiet:
    assert words not in record.getMessage()


@pytest.mark.parametrize(
  'text',
  [
    'w',
    'a/w b/w',
    'params/Dense_0/kernel params/Dense_0/bias params/Dense_1/kernel',
    'layers/0/weight layers/0/bias layers/1/weight',
    'backbone/conv/kernel head/kernel',
    # What T5X's networks have outside their layers, and prompts.
    'token_embedder/embedding decoder/logits_dense/kernel '
    'encoder/relpos_bias/rel_embedding encoder/side_relpos_bias/rel_embedding '
    'encoder/encoder_norm/scale encoder/prompt/prompt/prompt',
    'decoder/layers_0/self_attention/query/kernel '
    'decoder/token_embedder/embedding',
    'encoder/layers_0/attention/global_input_layer_norm/scale',
    # Known layers in numbered folders.
    'tower_0/layers_0/mlp/wi/kernel tower_1/layers_0/mlp/wi/kernel',
  ],
)
def test_small_trees_and_t5s_need_no_rules(text):
  for scheme in ('module', 'module_and_layer'):
    assert unknown_layers.problem(scheme, text.split()) == ''
    assert unknown_layers.doubt(scheme, text.split()) == ''
