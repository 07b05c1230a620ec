"""The network against NumPy: names, values, masks, packing and dropout."""

import dataclasses
import math
import re
from typing import Any

import gin
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dst_t5x.arrays import paths
from dst_t5x.bundled import make_seed
from dst_t5x.network import layers, transformer
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.recipes import gin_path
from dst_t5x.standalone import gin_host

# Neither heads · head_dim nor any two sizes are equal, so that a transposed or
# exchanged size cannot go unnoticed.
CONFIG = NetworkConfig(
  vocab_size=11,
  emb_dim=10,
  num_heads=2,
  num_encoder_layers=1,
  num_decoder_layers=2,
  head_dim=3,
  mlp_dim=7,
)
TIED = dataclasses.replace(CONFIG, logits_via_embedding=True)
SHALLOW = dataclasses.replace(CONFIG, num_decoder_layers=1)
SOURCES, TARGETS = [5, 9, 2, 7, 1], [8, 3, 10, 1]
ATOL = 1e-5

# Compiled: one operation at a time takes ten times as long.
logits = jax.jit(transformer.logits, static_argnums=0)
init_params = jax.jit(transformer.init_params, static_argnums=0)


def random_params(config, seed=0):
  """Parameters without the structure of an initialisation (scales of one)."""
  rng = np.random.default_rng(seed)
  return paths.unflatten(
    {
      path: rng.normal(0.0, 0.5, leaf.shape).astype(np.float32)
      for path, leaf in transformer.param_shapes(config).items()
    }
  )


PARAMS = {c: random_params(c) for c in (CONFIG, TIED, SHALLOW)}


def padded(rows, length):
  return np.array([row + [0] * (length - len(row)) for row in rows], np.int32)


def make_batch(pairs, lengths=(8, 6)):
  """One example a row."""
  return {
    'encoder_input_tokens': padded([s for s, _ in pairs], lengths[0]),
    'decoder_input_tokens': padded(
      [[0, *t[:-1]] for _, t in pairs], lengths[1]
    ),
    'decoder_target_tokens': padded([t for _, t in pairs], lengths[1]),
  }


def make_packed(pairs, lengths=(16, 12)):
  """All examples in one row, as seqio packs them."""

  def joined(lists, length):
    return padded([sum(lists, [])], length)

  def numbered(lists, length):
    return joined([[i + 1] * len(x) for i, x in enumerate(lists)], length)

  sources, targets = [s for s, _ in pairs], [t for _, t in pairs]
  return {
    'encoder_input_tokens': joined(sources, lengths[0]),
    'decoder_input_tokens': joined([[0, *t[:-1]] for t in targets], lengths[1]),
    'decoder_target_tokens': joined(targets, lengths[1]),
    'encoder_segment_ids': numbered(sources, lengths[0]),
    'decoder_segment_ids': numbered(targets, lengths[1]),
  }


def reference_bucket(relative, *, bidirectional):
  """One bucket in plain Python, from section 2.1 of the T5 paper.

  32 numbers, ranges that grow logarithmically up to an offset of 128 beyond
  which all share one. With both directions, half of the numbers are for keys
  after the query; half of what is left is for single offsets.
  """
  numbers, first = 32, 0
  if bidirectional:
    numbers, first = 16, 16 if relative > 0 else 0
    offset = abs(relative)
  else:
    offset = max(0, -relative)
  single = numbers // 2
  if offset < single:
    return first + offset
  edges = [
    single * (128 / single) ** (i / (numbers - single))
    for i in range(1, numbers - single)
  ]
  # Edges such as 32 are whole numbers, which a power may miss by a rounding.
  return first + single + sum(offset >= edge - 1e-6 for edge in edges)


def reference_logits(config, params, sources, targets) -> Any:
  """Logits of one example in float64, written from the papers.

  Raffel et al. 2020 (T5), section 2.1; T5 1.1: gated GELU (Shazeer 2020), no
  tied output. GELU is the tanh approximation. Nothing is batched or masked.
  """
  p: dict[str, Any] = {
    k: np.asarray(v, np.float64) for k, v in paths.flatten(params).items()
  }

  def norm(x, path):
    rms = np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6)
    return x / rms * p[f'{path}/scale']

  def attention(x, over, path, bias):
    out = []
    for head in range(config.num_heads):
      columns = slice(head * config.head_dim, (head + 1) * config.head_dim)
      q, k, v = (
        a @ p[f'{path}/{name}/kernel'][:, columns]
        for a, name in ((x, 'query'), (over, 'key'), (over, 'value'))
      )
      weights = np.exp(q @ k.T + bias[head])
      out.append(weights / weights.sum(axis=-1, keepdims=True) @ v)
    return np.concatenate(out, axis=-1) @ p[f'{path}/out/kernel']

  def mlp(x, path):
    gate, linear = (x @ p[f'{path}/wi_{i}/kernel'] for i in (0, 1))
    cubic = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)
    gelu = gate / 2 * (1 + np.tanh(cubic))
    return (gelu * linear) @ p[f'{path}/wo/kernel']

  def position_bias(stack, length, *, bidirectional):
    table = p[f'{stack}/relpos_bias/rel_embedding']
    bias = np.zeros((config.num_heads, length, length))
    for i in range(length):
      for j in range(length):
        bucket = reference_bucket(j - i, bidirectional=bidirectional)
        hidden = -np.inf if not bidirectional and j > i else 0.0
        bias[:, i, j] = table[:, bucket] + hidden
    return bias

  embedding = p['token_embedder/embedding']
  x = embedding[sources]
  bias = position_bias('encoder', len(sources), bidirectional=True)
  for i in range(config.num_encoder_layers):
    layer = f'encoder/layers_{i}'
    y = norm(x, f'{layer}/pre_attention_layer_norm')
    x = x + attention(y, y, f'{layer}/attention', bias)
    x = x + mlp(norm(x, f'{layer}/pre_mlp_layer_norm'), f'{layer}/mlp')
  encoded = norm(x, 'encoder/encoder_norm')

  x = embedding[[0, *targets[:-1]]]
  bias = position_bias('decoder', len(targets), bidirectional=False)
  free = np.zeros((config.num_heads, 1, 1))
  for i in range(config.num_decoder_layers):
    layer = f'decoder/layers_{i}'
    y = norm(x, f'{layer}/pre_self_attention_layer_norm')
    x = x + attention(y, y, f'{layer}/self_attention', bias)
    y = norm(x, f'{layer}/pre_cross_attention_layer_norm')
    x = x + attention(y, encoded, f'{layer}/encoder_decoder_attention', free)
    x = x + mlp(norm(x, f'{layer}/pre_mlp_layer_norm'), f'{layer}/mlp')
  x = norm(x, 'decoder/decoder_norm')
  if config.logits_via_embedding:
    return x @ embedding.T / math.sqrt(config.emb_dim)
  return x @ p['decoder/logits_dense/kernel']


def attention_names(name):
  return {f'{name}/{p}/kernel' for p in ('query', 'key', 'value', 'out')}


def test_parameters_have_t5x_names_and_shapes():
  # From t5x/examples/t5/network.py and layers.py.
  joined = ('attention', (10, 6), (6, 10))
  shapes = {k: v.shape for k, v in transformer.param_shapes(CONFIG).items()}
  assert shapes['token_embedder/embedding'] == (11, 10)
  assert shapes['decoder/logits_dense/kernel'] == (10, 11)
  assert shapes['encoder/relpos_bias/rel_embedding'] == (2, 32)
  assert shapes['decoder/layers_1/mlp/wi_1/kernel'] == (10, 7)
  assert shapes['decoder/layers_1/mlp/wo/kernel'] == (7, 10)
  assert shapes['encoder/layers_0/attention/query/kernel'] == joined[1]
  assert shapes['encoder/layers_0/attention/out/kernel'] == joined[2]
  mlp = {f'mlp/{n}/kernel' for n in ('wi_0', 'wi_1', 'wo')}
  encoder = attention_names('attention') | mlp
  encoder |= {'pre_attention_layer_norm/scale', 'pre_mlp_layer_norm/scale'}
  decoder = attention_names('self_attention') | mlp
  decoder |= attention_names('encoder_decoder_attention')
  decoder |= {
    f'pre_{n}_layer_norm/scale'
    for n in ('self_attention', 'cross_attention', 'mlp')
  }
  assert set(shapes) == {
    'token_embedder/embedding',
    'encoder/relpos_bias/rel_embedding',
    'encoder/encoder_norm/scale',
    'decoder/relpos_bias/rel_embedding',
    'decoder/decoder_norm/scale',
    'decoder/logits_dense/kernel',
    *(f'encoder/layers_0/{n}' for n in encoder),
    *(f'decoder/layers_{i}/{n}' for i in (0, 1) for n in decoder),
  }


def test_tied_output_has_no_kernel_of_its_own():
  assert set(transformer.param_shapes(CONFIG)) - set(
    transformer.param_shapes(TIED)
  ) == {'decoder/logits_dense/kernel'}


def test_initial_parameters_have_t5_scales_and_the_shapes_foretold():
  # T5 folds 1/√head_dim into the query kernel: fan-in alone for the key.
  config = NetworkConfig(64, 256, 4, 1, 1, 64, 512)
  params = paths.flatten(init_params(config, jax.random.key(0)))
  assert {k: (v.shape, v.dtype) for k, v in params.items()} == {
    k: (v.shape, v.dtype) for k, v in transformer.param_shapes(config).items()
  }
  deviation = {k.split('/', 2)[-1]: np.std(v) for k, v in params.items()}
  for name, expected in (
    ('attention/query/kernel', 256**-0.5 / 8),
    ('attention/key/kernel', 256**-0.5),
    ('mlp/wi_0/kernel', 256**-0.5),
    ('mlp/wo/kernel', 512**-0.5),
    ('kernel', 256**-0.5),  # decoder/logits_dense
  ):
    np.testing.assert_allclose(deviation[name], expected, rtol=0.03)
  np.testing.assert_allclose(
    np.std(params['token_embedder/embedding']), 1.0, rtol=0.03
  )


@pytest.mark.parametrize('config', [CONFIG, TIED], ids=['untied', 'tied'])
def test_logits_equal_a_numpy_network(config):
  batch = make_batch([(SOURCES, TARGETS)], (5, 4))
  found = logits(config, PARAMS[config], batch)
  expected = reference_logits(config, PARAMS[config], SOURCES, TARGETS)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found[0], expected, atol=ATOL)


def test_logits_equal_a_numpy_network_over_far_positions():
  # Beyond 128 tokens every bucket is in use.
  rng = np.random.default_rng(1)
  sources, targets = (rng.integers(2, 11, n).tolist() for n in (140, 135))
  batch = make_batch([(sources, targets)], (140, 135))
  found = logits(CONFIG, PARAMS[CONFIG], batch)
  expected = reference_logits(CONFIG, PARAMS[CONFIG], sources, targets)
  np.testing.assert_allclose(found[0], expected, atol=3 * ATOL)


@pytest.mark.parametrize('bidirectional', [True, False])
@pytest.mark.parametrize('compiled', [True, False])
def test_buckets_equal_the_paper(bidirectional, compiled):
  relative = np.arange(-600, 601)

  def bucket(x):
    return layers.position_bucket(x, bidirectional=bidirectional)

  found = (jax.jit(bucket) if compiled else bucket)(jnp.asarray(relative))
  expected = [
    reference_bucket(int(r), bidirectional=bidirectional) for r in relative
  ]
  np.testing.assert_array_equal(found, expected)
  assert set(expected) == (
    set(range(32)) - {16} if bidirectional else set(range(32))
  )


def test_parameters_may_be_numpy_constants_of_a_compiled_function():
  # As a seed's are, when a caller closes over them.
  batch = make_batch([(SOURCES, TARGETS)])
  found = jax.jit(
    lambda batch: transformer.logits(SHALLOW, PARAMS[SHALLOW], batch)
  )
  np.testing.assert_allclose(
    found(batch), logits(SHALLOW, PARAMS[SHALLOW], batch), atol=ATOL
  )


def test_padding_changes_nothing():
  short = make_batch([(SOURCES, TARGETS)], (5, 4))
  long = make_batch([(SOURCES, TARGETS)], (13, 9))
  np.testing.assert_allclose(
    logits(CONFIG, PARAMS[CONFIG], short),
    logits(CONFIG, PARAMS[CONFIG], long)[:, :4],
    atol=ATOL,
  )


def test_packed_examples_do_not_see_each_other():
  pairs = [(SOURCES, TARGETS), ([4, 1], [9, 6, 1]), ([3, 3, 8, 1], [2, 1])]
  found = logits(CONFIG, PARAMS[CONFIG], make_packed(pairs))[0]
  start = 0
  for sources, targets in pairs:
    expected = reference_logits(CONFIG, PARAMS[CONFIG], sources, targets)
    np.testing.assert_allclose(
      found[start : start + len(targets)], expected, atol=ATOL
    )
    start += len(targets)


def test_packing_needs_the_segments():
  # Guards the test above: without segments the same row gives other logits.
  packed = make_packed([(SOURCES, TARGETS), ([4, 1], [9, 6, 1])])
  whole = {k: v for k, v in packed.items() if not k.endswith('_ids')}
  difference = logits(CONFIG, PARAMS[CONFIG], packed) - logits(
    CONFIG, PARAMS[CONFIG], whole
  )
  assert np.max(np.abs(difference[0, :7])) > 0.1


def test_decoder_does_not_see_the_future():
  batch = make_batch([(SOURCES, TARGETS)], (5, 4))
  later = batch['decoder_input_tokens'].copy()
  later[0, 3] = 6
  before = logits(CONFIG, PARAMS[CONFIG], batch)
  after = logits(
    CONFIG, PARAMS[CONFIG], {**batch, 'decoder_input_tokens': later}
  )
  np.testing.assert_array_equal(before[:, :3], after[:, :3])
  assert np.max(np.abs(before[:, 3] - after[:, 3])) > 0.1


def test_rows_of_padding_are_finite():
  batch = make_batch([(SOURCES, TARGETS), ([], [0])])
  batch['decoder_target_tokens'][1] = 0
  assert np.all(np.isfinite(logits(CONFIG, PARAMS[CONFIG], batch)))


def test_every_parameter_gets_a_gradient():
  batch = make_batch([(SOURCES, TARGETS)])

  def total(params):
    return jnp.sum(jnp.sin(logits(CONFIG, params, batch)[0, :4]))

  gradients = paths.flatten(jax.jit(jax.grad(total))(PARAMS[CONFIG]))
  assert [k for k, v in gradients.items() if not np.any(v)] == []
  assert [k for k, v in gradients.items() if not np.all(np.isfinite(v))] == []


def test_bfloat16_activations_give_float32_logits():
  batch = make_batch([(SOURCES, TARGETS)])
  config = dataclasses.replace(CONFIG, dtype='bfloat16')
  found = logits(config, PARAMS[CONFIG], batch)
  expected = logits(CONFIG, PARAMS[CONFIG], batch)
  assert found.dtype == jnp.float32
  assert np.all(np.isfinite(found))
  # Coarser, so that the option was not ignored, but the same network.
  error = np.max(np.abs(found - expected)[0, :4])
  assert 1e-4 < error < 0.2 * np.max(np.abs(expected))


def test_dropout_needs_a_key():
  config = dataclasses.replace(SHALLOW, dropout_rate=0.3)
  batch = make_batch([(SOURCES, TARGETS)])
  plain = logits(SHALLOW, PARAMS[SHALLOW], batch)
  without = logits(config, PARAMS[SHALLOW], batch)
  first, again, other = (
    logits(config, PARAMS[SHALLOW], batch, dropout_key=jax.random.key(seed))
    for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(plain, without)
  np.testing.assert_array_equal(first, again)
  assert np.any(plain != first)
  assert np.any(first != other)


def test_dropout_rate_zero_ignores_the_key():
  batch = make_batch([(SOURCES, TARGETS)])
  np.testing.assert_array_equal(
    logits(SHALLOW, PARAMS[SHALLOW], batch),
    logits(SHALLOW, PARAMS[SHALLOW], batch, dropout_key=jax.random.key(0)),
  )


def test_config_survives_json_types():
  config = dataclasses.replace(TIED, dropout_rate=0.1, dtype='bfloat16')
  values = config.to_dict()
  assert isinstance(values['mlp_activations'], list)
  assert NetworkConfig.from_dict(values) == config
  assert hash(NetworkConfig.from_dict(values)) == hash(config)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'emb_dims': 8}, r"unknown network setting 'emb_dims'; .*'emb_dim'"),
    ({'emb_dim': None}, r'the network lacks: emb_dim'),
    ({'emb_dim': 0}, r'emb_dim=0 must be a whole number >= 1'),
    ({'emb_dim': 8.0}, r'emb_dim=8\.0 must be a whole number'),
    ({'num_heads': True}, r'num_heads=True must be a whole number'),
    ({'dropout_rate': 1.0}, r'dropout_rate=1\.0 must be in \[0, 1\)'),
    ({'mlp_activations': ['gellu']}, r"'gellu'.*known are gelu"),
    ({'mlp_activations': []}, r'mlp_activations=\(\)'),
    # Its -1e10 would be infinite, and rows of padding NaN.
    ({'dtype': 'float16'}, r"dtype='float16': known are float32, bfloat16"),
  ],
)
def test_config_refuses(changes, message):
  values = {**CONFIG.to_dict(), **changes}
  values = {k: v for k, v in values.items() if v is not None}
  with pytest.raises(ValueError, match=message):
    NetworkConfig.from_dict(values)


MODEL_FILES = sorted((gin_path.root() / 'models').glob('*.gin'))


def config_of(path):
  gin.clear_config()
  try:
    gin.parse_config(path.read_text())
    found = gin_host._network()
  finally:
    gin.clear_config()
  assert found is not None
  return found


def test_there_are_model_files():
  assert {path.stem for path in MODEL_FILES} >= {'byte_tiny', 't5_1_1_small'}


@pytest.mark.parametrize('path', MODEL_FILES, ids=lambda path: path.stem)
def test_model_file_says_how_many_parameters_it_has(path):
  shapes = transformer.param_shapes(config_of(path)).values()
  said = re.search(r'([\d,]+) parameters', path.read_text())
  assert said
  count = sum(math.prod(leaf.shape) for leaf in shapes)
  assert int(said[1].replace(',', '')) == count


def test_bundled_seed_has_the_size_of_its_model_file():
  path = gin_path.root() / 'models' / 'byte_tiny.gin'
  assert config_of(path) == make_seed.CONFIG
