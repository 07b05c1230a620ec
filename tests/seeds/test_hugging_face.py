"""Hugging Face's files: what they may say, and every contradiction.

Whether the network is the same is in test_transformers.py.
"""

import json
import pathlib

import numpy as np
import pytest
import safetensors.numpy

from dst_t5x import seeds
from dst_t5x.arrays import paths
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.network.transformer import param_shapes
from dst_t5x.seeds import network_shapes
from dst_t5x.seeds.errors import SeedError
from dst_t5x.seeds.hugging_face import model_writing

QUERY = 'encoder.block.0.layer.0.SelfAttention.q.weight'


@pytest.fixture
def folder(tmp_path, params, config) -> pathlib.Path:
  """A complete checkpoint."""
  where = tmp_path / 'model'
  model_writing.write(params, where, config=config.to_dict())
  return where


def tensors_of(folder):
  return safetensors.numpy.load_file(folder / 'model.safetensors')


def put_tensors(folder, tensors):
  file = folder / 'model.safetensors'
  safetensors.numpy.save_file(tensors, file, metadata={'format': 'pt'})


def edit_config(folder, **changes):
  file = folder / 'config.json'
  config = {**json.loads(file.read_text()), **changes}
  kept = {k: v for k, v in config.items() if v is not ...}
  file.write_text(json.dumps(kept))


def test_matrices_are_turned_and_tables_are_not(folder, params):
  tensors = tensors_of(folder)
  flat = paths.flatten(params)
  for theirs, ours in {
    QUERY: 'encoder/layers_0/attention/query/kernel',
    'decoder.block.1.layer.1.EncDecAttention.o.weight': (
      'decoder/layers_1/encoder_decoder_attention/out/kernel'
    ),
    'decoder.block.0.layer.2.DenseReluDense.wi_1.weight': (
      'decoder/layers_0/mlp/wi_1/kernel'
    ),
    'decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight': (
      'decoder/relpos_bias/rel_embedding'
    ),
    'lm_head.weight': 'decoder/logits_dense/kernel',
  }.items():
    np.testing.assert_array_equal(tensors[theirs], flat[ours].T)
  for theirs, ours in {
    'shared.weight': 'token_embedder/embedding',
    'decoder.final_layer_norm.weight': 'decoder/decoder_norm/scale',
    'decoder.block.1.layer.1.layer_norm.weight': (
      'decoder/layers_1/pre_cross_attention_layer_norm/scale'
    ),
  }.items():
    np.testing.assert_array_equal(tensors[theirs], flat[ours])
  assert len(tensors) == len(flat)


def test_our_network_has_these_tensors(config):
  for tied in (False, True):
    both = NetworkConfig.from_dict(
      {**config.to_dict(), 'logits_via_embedding': tied}
    )
    assert network_shapes.from_shapes(param_shapes(both), 'here') == both


def test_copies_of_the_embedding_are_one(folder, params):
  tensors = tensors_of(folder)
  for stack in ('encoder', 'decoder'):
    tensors[f'{stack}.embed_tokens.weight'] = tensors['shared.weight'].copy()
  put_tensors(folder, tensors)
  assert seeds.read(folder).fingerprint == seeds.fingerprint(params)
  del tensors['shared.weight']
  put_tensors(folder, tensors)
  assert seeds.read(folder).fingerprint == seeds.fingerprint(params)


def test_a_leftover_is_ignored(folder, params):
  tensors = tensors_of(folder)
  tensors[
    'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight'
  ] = np.zeros((32, 2), np.float32)
  put_tensors(folder, tensors)
  assert seeds.read(folder).fingerprint == seeds.fingerprint(params)


def test_an_older_config_is_enough(folder, config):
  # What released T5 1.1 checkpoints say.
  edit_config(
    folder, scale_decoder_outputs=..., num_decoder_layers=2, dtype=...
  )
  assert seeds.read(folder).config == config.to_dict()


def test_a_network_is_tied_unless_the_config_denies_it(folder, params):
  tensors = tensors_of(folder)
  tensors['lm_head.weight'] = tensors['shared.weight'].copy()
  put_tensors(folder, tensors)
  edit_config(folder, tie_word_embeddings=..., scale_decoder_outputs=...)
  source = seeds.open_source(folder)
  assert source.config is not None and source.config['logits_via_embedding']
  assert 'decoder/logits_dense/kernel' not in source.specs()


def test_an_output_layer_may_share_the_embedding_unscaled(folder, params):
  tensors = tensors_of(folder)
  del tensors['lm_head.weight']
  put_tensors(folder, tensors)
  found = seeds.read(folder).params
  np.testing.assert_array_equal(
    found['decoder']['logits_dense']['kernel'],
    params['token_embedder']['embedding'].T,
  )


def _tensors(change):
  def damage(folder):
    tensors = tensors_of(folder)
    change(tensors)
    put_tensors(folder, tensors)

  return damage


def _config(**changes):
  return lambda folder: edit_config(folder, **changes)


def _index(weights):
  def damage(folder):
    (folder / 'model.safetensors').rename(folder / 'a.safetensors')
    text = json.dumps({'weight_map': weights(folder / 'a.safetensors')})
    (folder / 'model.safetensors.index.json').write_text(text)

  return damage


def _names(file):
  return dict.fromkeys(safetensors.numpy.load_file(file), file.name)


def _only_pickle(folder):
  (folder / 'model.safetensors').rename(folder / 'pytorch_model.bin')


DAMAGES = {
  'no config': (lambda f: (f / 'config.json').unlink(), 'config.json'),
  'config cut': (
    lambda f: (f / 'config.json').write_text('{"d_model":'),
    'config.json cannot be read',
  ),
  'config a list': (
    lambda f: (f / 'config.json').write_text('[]'),
    'holds no JSON object',
  ),
  'bert': (_config(model_type='bert'), "model_type is 'bert'.*t5, mt5"),
  'umt5': (_config(model_type='umt5'), "model_type is 'umt5'"),
  'buckets': (
    _config(relative_attention_num_buckets=64),
    'num_buckets is 64; the network has 32',
  ),
  'epsilon': (_config(layer_norm_epsilon=1e-5), 'layer_norm_epsilon'),
  'activation': (_config(feed_forward_proj='gelu'), "'gelu'; what works: gat"),
  'no size': (_config(d_kv=...), 'config.json: lacks d_kv'),
  'bad size': (_config(d_kv=-1), 'head_dim=-1 must be'),
  'text size': (_config(d_kv='x'), "head_dim='x' must be"),
  'other depth': (_config(num_layers=2), 'does not fit.*missing.*block.1'),
  'other width': (
    _config(d_ff=11),
    r'has shape \(10, 8\) instead of \(11, 8\)',
  ),
  'tensor missing': (_tensors(lambda t: t.pop(QUERY)), f'missing: .{QUERY}'),
  'tensor extra': (
    _tensors(lambda t: t.update(extra=np.ones(1))),
    "not in the network: 'extra'",
  ),
  'no embedding': (
    _tensors(lambda t: t.pop('shared.weight')),
    "lacks 'shared.weight'",
  ),
  'two embeddings': (
    _tensors(
      lambda t: t.update(
        {'decoder.embed_tokens.weight': t['shared.weight'] + 1}
      )
    ),
    "'decoder.embed_tokens.weight', which differs",
  ),
  'no head': (
    lambda f: [
      _tensors(lambda t: t.pop('lm_head.weight'))(f),
      edit_config(f, scale_decoder_outputs=...),
    ],
    "lacks 'lm_head.weight'.*not the embedding",
  ),
  'head though tied': (
    _config(tie_word_embeddings=True, scale_decoder_outputs=True),
    "'lm_head.weight', which differs.*'tie_word_embeddings' to false",
  ),
  'dtype': (
    _tensors(lambda t: t.update({QUERY: t[QUERY].astype(np.complex64)})),
    'in dtype C64',
  ),
  'pickle': (_only_pickle, 'pytorch_model.bin only.*unpickling can run code'),
  'no weights': (
    lambda f: (f / 'model.safetensors').unlink(),
    'lacks model.safetensors',
  ),
  'file cut': (
    lambda f: (f / 'model.safetensors').write_bytes(
      (f / 'model.safetensors').read_bytes()[:-1]
    ),
    'no complete safetensors file',
  ),
  'index a list': (_index(lambda _: []), 'no index of weights'),
  'index elsewhere': (
    _index(lambda file: {**_names(file), QUERY: '../a.safetensors'}),
    'which is no file',
  ),
  'index of a lost file': (
    _index(lambda file: {**_names(file), QUERY: 'b.safetensors'}),
    'b.safetensors: no such file',
  ),
  'index too long': (
    _index(lambda file: {**_names(file), 'more': file.name}),
    "a.safetensors lacks 'more'",
  ),
  'index too short': (
    _index(lambda f: {k: v for k, v in _names(f).items() if k != QUERY}),
    f"does not name '{QUERY}'",
  ),
}


@pytest.mark.parametrize(('damage', 'message'), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_refused_by_name(folder, damage, message):
  damage(folder)
  with pytest.raises(SeedError, match=message) as caught:
    seeds.read(folder)
  assert str(folder) in str(caught.value)


def test_a_lone_file_needs_its_config(folder):
  (folder / 'config.json').unlink()
  with pytest.raises(SeedError, match='lacks config.json'):
    seeds.read(folder / 'model.safetensors')


# Writing.


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda p: p['encoder'].pop('encoder_norm'), 'lacks .*encoder_norm/scale'),
    (lambda p: p.update(extra=np.ones(1, np.float32)), "has 'extra', too"),
    (
      lambda p: p['decoder']['decoder_norm'].update(
        scale=np.ones(3, np.float32)
      ),
      r'in shape \(3,\) instead of \(8,\)',
    ),
    (
      lambda p: p['decoder']['decoder_norm'].update(scale=np.ones(8)),
      'dtype float32 and float64',
    ),
    (lambda p: p.pop('token_embedder'), 'token_embedder/embedding'),
  ],
)
def test_what_is_no_t5_cannot_be_written(tmp_path, params, change, message):
  change(params)
  with pytest.raises(SeedError, match=message):
    model_writing.write(params, tmp_path / 'a')
  assert list(tmp_path.iterdir()) == []


def test_a_config_has_to_fit_the_parameters(tmp_path, params, config):
  other = {**config.to_dict(), 'num_decoder_layers': 1}
  with pytest.raises(SeedError, match="has 'decoder/layers_1/.*too"):
    model_writing.write(params, tmp_path / 'a', config=other)
  odd = {**config.to_dict(), 'mlp_activations': ['relu', 'gelu']}
  with pytest.raises(SeedError, match='have no name in the Hugging Face'):
    model_writing.write(params, tmp_path / 'a', config=odd)
  with pytest.raises(SeedError, match="unknown network setting 'depth'"):
    model_writing.write(params, tmp_path / 'a', config={'depth': 1})
