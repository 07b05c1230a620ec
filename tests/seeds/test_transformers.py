"""Hugging Face's layout against Hugging Face's own network.

Both networks get the same random weights, through files in both directions.
"""

import json

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from dst_t5x import seeds
from dst_t5x.arrays import paths
from dst_t5x.network import transformer
from dst_t5x.network.decoding import decode
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.seeds import conversion

REASON = 'checks against Hugging Face: pip install torch transformers'
torch = pytest.importorskip('torch', reason=REASON)
transformers = pytest.importorskip('transformers', reason=REASON)

SIZES = {
  'tiny': {},
  'deeper': {'num_layers': 3, 'num_decoder_layers': 2, 'd_kv': 5},
  'wider': {'d_model': 96, 'd_ff': 64, 'num_heads': 6, 'vocab_size': 200},
  '1.1 small, half as deep': {
    'd_model': 512,
    'd_kv': 64,
    'd_ff': 1024,
    'num_layers': 4,
    'num_heads': 6,
    'vocab_size': 1000,
  },  # fmt: skip
}
HEADS = ['untied', 'tied', 'shared']


def random_model(size='tiny', head='untied', *, kind='t5', seed=0, **options):
  """A network with weights that all matter, as its authors run it."""
  names = {
    'vocab_size': 40, 'd_model': 16, 'd_kv': 4, 'd_ff': 24, 'num_layers': 1,
    'num_heads': 3, 'feed_forward_proj': 'gated-gelu',
    'decoder_start_token_id': 0, 'dropout_rate': 0.1,
  }  # fmt: skip
  Config, Network = {
    't5': (transformers.T5Config, transformers.T5ForConditionalGeneration),
    'mt5': (transformers.MT5Config, transformers.MT5ForConditionalGeneration),
  }[kind]
  config = Config(
    **{**names, **SIZES[size], 'tie_word_embeddings': head == 'tied', **options}
  )
  model = Network(config).eval()
  if head == 'untied':
    model.lm_head.weight = torch.nn.Parameter(model.shared.weight.clone())
    model.config.tie_word_embeddings = False
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, weight in model.named_parameters():
      noise = torch.randn(weight.shape, generator=generator)
      if 'layer_norm' in name:
        weight.copy_(1.0 + 0.2 * noise)
      elif name == 'lm_head.weight' or (name, head) == (
        'shared.weight',
        'shared',
      ):
        weight.copy_(noise / config.d_model**0.5)
      elif name == 'shared.weight':
        # Small, or the decoder of tied embeddings repeats its input.
        weight.copy_(0.3 * noise)
      elif name.endswith('.q.weight'):
        # As T5 initialises it, which does not divide by the square root later.
        weight.copy_(noise / (config.d_model * config.d_kv) ** 0.5)
      else:
        weight.copy_(noise / weight.shape[1] ** 0.5)
  return model


def random_batch(vocab_size, seed=0):
  rng = np.random.default_rng(seed)
  lengths, width = (7, 3, 5, 1), 9
  sources = np.zeros((len(lengths), width), np.int32)
  for row, length in zip(sources, lengths, strict=True):
    row[:length] = [*rng.integers(2, vocab_size, length - 1), 1]
  targets = rng.integers(2, vocab_size, (len(lengths), 6)).astype(np.int32)
  inputs = np.concatenate([np.zeros((4, 1), np.int32), targets[:, :-1]], axis=1)
  return {
    'encoder_input_tokens': sources,
    'decoder_input_tokens': inputs,
    'decoder_target_tokens': targets,
  }


def logits_there(model, batch):
  sources = torch.tensor(batch['encoder_input_tokens']).long()
  with torch.no_grad():
    return model(
      input_ids=sources,
      attention_mask=(sources > 0).long(),
      decoder_input_ids=torch.tensor(batch['decoder_input_tokens']).long(),
    ).logits.numpy()


def greedy_there(model, sources, length):
  sources = torch.tensor(sources).long()
  found = model.generate(
    input_ids=sources,
    attention_mask=(sources > 0).long(),
    do_sample=False,
    num_beams=1,
    max_new_tokens=length,
    use_cache=False,  # its cache takes both stacks to be of one depth
  ).numpy()
  padded = np.zeros((len(found), length), np.int32)
  padded[:, : found.shape[1] - 1] = found[:, 1:]
  return padded


def assert_same_network(model, params, config):
  """Equal logits and equal greedy text."""
  batch = random_batch(config.vocab_size)
  expected = logits_there(model, batch)
  assert np.std(expected) > 0.05  # not all about nothing
  found = transformer.logits(config, params, batch)
  # Logits are of size 1 but for the bundled seed's, which go up to 25.
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)
  sources = batch['encoder_input_tokens']
  decoded = decode(config, params, jnp.asarray(sources), max_decode_len=12)
  expected = greedy_there(model, sources, 12)
  assert len(np.unique(expected)) > 2  # other tokens than the end
  np.testing.assert_array_equal(decoded.tokens, expected)


@pytest.mark.parametrize(
  ('size', 'head'),
  [
    *(('tiny', head) for head in HEADS),
    *(('deeper', head) for head in HEADS),
    ('wider', 'untied'),
    ('1.1 small, half as deep', 'untied'),
    ('1.1 small, half as deep', 'tied'),
  ],
)
def test_a_network_of_theirs_is_the_same_here(tmp_path, size, head):
  model = random_model(size, head)
  model.save_pretrained(tmp_path)
  seed = seeds.read(tmp_path)
  config = NetworkConfig.from_dict(seed.config)
  assert config.logits_via_embedding == (head == 'tied')
  assert (config.dropout_rate, config.mlp_dim) == (0.1, model.config.d_ff)
  seeds.check_params(seed.params, transformer.param_shapes(config), origin='it')
  assert_same_network(model, seed.params, config)


def test_mt5_is_the_same_here(tmp_path):
  model = random_model('deeper', kind='mt5')
  model.save_pretrained(tmp_path)
  seed = seeds.read(tmp_path)
  config = NetworkConfig.from_dict(seed.config)
  assert_same_network(model, seed.params, config)


@pytest.mark.parametrize('projection', ['relu', 'gated-silu', 'gated-relu'])
def test_other_activations_are_the_same_here(tmp_path, projection):
  model = random_model('deeper', feed_forward_proj=projection)
  model.save_pretrained(tmp_path)
  seed = seeds.read(tmp_path)
  config = NetworkConfig.from_dict(seed.config)
  assert_same_network(model, seed.params, config)


def test_a_file_without_its_folder_is_the_same(tmp_path):
  random_model().save_pretrained(tmp_path)
  (tmp_path / 'model.safetensors').rename(tmp_path / 'other.safetensors')
  source = seeds.open_source(tmp_path / 'other.safetensors')
  assert source.layout == 'hf'
  assert 'decoder/logits_dense/kernel' in source.specs()


def test_many_files_are_as_one(tmp_path):
  model = random_model('deeper')
  model.save_pretrained(tmp_path / 'one')
  model.save_pretrained(tmp_path / 'many', max_shard_size='10KB')
  files = list((tmp_path / 'many').glob('*.safetensors'))
  assert len(files) > 3
  one, many = (seeds.read(tmp_path / name) for name in ('one', 'many'))
  assert one.fingerprint == many.fingerprint
  assert_same_network(model, many.params, NetworkConfig.from_dict(many.config))


def test_bfloat16_keeps_its_bits(tmp_path):
  random_model().to(torch.bfloat16).save_pretrained(tmp_path / 'a')
  seed = seeds.read(tmp_path / 'a')
  dtypes = {leaf.dtype for leaf in paths.flatten(seed.params).values()}
  assert dtypes == {np.dtype(ml_dtypes.bfloat16)}
  where = conversion.write(
    'hf', seed.params, tmp_path / 'b', config=seed.config
  )
  model = transformers.T5ForConditionalGeneration.from_pretrained(where)
  assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


# Round trips: theirs → ours → theirs, and ours → theirs → ours.


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('through', ['t5x', 'orbax', 'hf', 'dst_t5x'])
def test_a_round_trip_keeps_every_bit(tmp_path, head, through):
  model = random_model('deeper', head)
  model.save_pretrained(tmp_path / 'theirs')
  seed = seeds.read(tmp_path / 'theirs')
  suffix = '.safetensors' if through == 'dst_t5x' else ''
  middle = conversion.write(
    through, seed.params, tmp_path / f'middle{suffix}', config=seed.config
  )
  ours = seeds.read(middle)
  assert ours.fingerprint == seed.fingerprint
  where = conversion.write('hf', ours.params, tmp_path / 'back', config=None)
  back, info = transformers.T5ForConditionalGeneration.from_pretrained(
    where, output_loading_info=True
  )
  assert not info['missing_keys'] and not info['unexpected_keys']
  before, after = model.state_dict(), back.state_dict()
  assert set(before) == set(after)
  for name, weight in before.items():
    assert weight.numpy().tobytes() == after[name].numpy().tobytes(), name
  batch = random_batch(40)
  np.testing.assert_array_equal(
    logits_there(back.eval(), batch), logits_there(model, batch)
  )


@pytest.mark.parametrize('tied', [False, True])
def test_ours_is_the_same_network_there(tmp_path, tied):
  config = NetworkConfig(
    vocab_size=40,
    emb_dim=16,
    num_heads=3,
    num_encoder_layers=1,
    num_decoder_layers=2,
    head_dim=5,
    mlp_dim=24,
    logits_via_embedding=tied,
  )
  rng = np.random.default_rng(1)
  params = paths.unflatten(
    {
      path: rng.normal(0, 0.3, leaf.shape).astype(np.float32)
      for path, leaf in transformer.param_shapes(config).items()
    }
  )
  where = conversion.write(
    'hf', params, tmp_path / 'out', config=config.to_dict()
  )
  model = transformers.T5ForConditionalGeneration.from_pretrained(where).eval()
  assert_same_network(model, params, config)
  assert seeds.read(where).config == config.to_dict()
  about = json.loads((tmp_path / 'out' / 'config.json').read_text())
  assert about['tie_word_embeddings'] == tied


def test_the_bundled_seed_speaks_there_as_here(tmp_path):
  seed = seeds.read('bundled')
  where = conversion.write(
    'hf', seed.params, tmp_path / 'a', config=seed.config
  )
  model = transformers.T5ForConditionalGeneration.from_pretrained(where).eval()
  assert_same_network(model, seed.params, NetworkConfig.from_dict(seed.config))
