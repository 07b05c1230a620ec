"""The standalone network, loss and decoding against T5X's own.

T5X runs its minimal T5 (`t5x.examples.t5.network`) in its `EncoderDecoderModel`
on the same float32 parameters.
"""

import ast
import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio
from t5x import decoding as t5x_decoding  # type: ignore
from t5x import models  # type: ignore
from t5x.examples.t5 import network as t5x_network  # type: ignore

from dst_t5x.arrays import paths
from dst_t5x.network import layers, transformer
from dst_t5x.network.decoding import decode
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.network.token_loss import loss
from dst_t5x.recipes import gin_path

UNTIED = NetworkConfig(
  vocab_size=24,
  emb_dim=16,
  num_heads=4,
  num_encoder_layers=1,
  num_decoder_layers=2,
  head_dim=5,
  mlp_dim=12,
)
TIED = dataclasses.replace(UNTIED, logits_via_embedding=True)
CONFIGS = pytest.mark.parametrize(
  'config', [UNTIED, TIED], ids=['untied', 'tied']
)
PACKED = pytest.mark.parametrize(
  'packed', [False, True], ids=['unpacked', 'packed']
)
ATOL = 1e-5


@functools.cache
def t5x_model(config, **options) -> Any:
  """T5X's model of the same network."""
  fields = config.to_dict()
  fields['mlp_activations'] = tuple(fields['mlp_activations'])
  vocabulary = seqio.PassThroughVocabulary(config.vocab_size, eos_id=1)
  return models.EncoderDecoderModel(
    module=t5x_network.Transformer(t5x_network.T5Config(**fields)),
    input_vocabulary=vocabulary,
    output_vocabulary=vocabulary,
    optimizer_def=None,
    **options,
  )


def random_params(config, seed, scale=0.5):
  rng = np.random.default_rng(seed)
  return paths.unflatten(
    {
      path: rng.normal(0.0, scale, leaf.shape).astype(np.float32)
      for path, leaf in transformer.param_shapes(config).items()
    }
  )


def random_tokens(rng, lengths, width) -> Any:
  tokens = np.zeros((len(lengths), width), np.int32)
  for row, length in zip(tokens, lengths, strict=True):
    row[:length] = [*rng.integers(2, 24, length - 1), 1]
  return tokens


def make_batch(packed, seed=0) -> dict[str, Any]:
  """Features as seqio names and fills them, packed or not."""
  rng = np.random.default_rng(seed)
  sources = [random_tokens(rng, [n], n)[0] for n in (7, 3, 5, 2)]
  targets = [random_tokens(rng, [n], n)[0] for n in (4, 6, 2, 3)]
  rows = [[0, 1], [2, 3]] if packed else [[0], [1], [2], [3]]
  shapes = {'encoder': (len(rows), 12), 'decoder': (len(rows), 11)}
  names = ['input_tokens', 'segment_ids', 'positions']
  batch: dict[str, Any] = {
    f'{side}_{name}': np.zeros(shape, np.int32)
    for side, shape in shapes.items()
    for name in names
  }
  batch['decoder_target_tokens'] = np.zeros(shapes['decoder'], np.int32)
  for row, examples in enumerate(rows):
    start = {'encoder': 0, 'decoder': 0}
    for segment, example in enumerate(examples):
      for side, tokens in (
        ('encoder', sources[example]),
        ('decoder', targets[example]),
      ):
        place = row, slice(start[side], start[side] + len(tokens))
        start[side] += len(tokens)
        shifted = np.concatenate([[0], tokens[:-1]])
        inputs = tokens if side == 'encoder' else shifted
        batch[f'{side}_input_tokens'][place] = inputs
        batch[f'{side}_segment_ids'][place] = segment + 1
        batch[f'{side}_positions'][place] = np.arange(len(tokens))
        if side == 'decoder':
          batch['decoder_target_tokens'][place] = tokens
  weights = (batch['decoder_target_tokens'] > 0).astype(np.float32)
  weights[0, 1] = 0.5
  batch['decoder_loss_weights'] = weights
  if not packed:
    batch = {
      k: v
      for k, v in batch.items()
      if not k.endswith(('segment_ids', 'positions'))
    }
  return batch


@CONFIGS
def test_parameter_names_and_shapes(config):
  batch = make_batch(packed=False)
  variables = jax.eval_shape(
    lambda key: t5x_model(config).get_initial_variables(
      key, {k: v.shape for k, v in batch.items()}
    ),
    jax.random.key(0),
  )
  theirs = paths.flatten(dict(variables['params']))
  assert {k: (v.shape, v.dtype) for k, v in theirs.items()} == {
    k: (v.shape, v.dtype) for k, v in transformer.param_shapes(config).items()
  }


def test_initial_parameters_from_the_same_key():
  # Names of modules are folded into the key, so that equal trees and
  # initialisers give equal numbers.
  batch = make_batch(packed=False)
  config = dataclasses.replace(
    UNTIED, num_encoder_layers=1, num_decoder_layers=1
  )
  theirs, ours = (
    paths.flatten(jax.tree.map(np.asarray, dict(params)))
    for params in (
      jax.jit(
        lambda key: t5x_model(config).get_initial_variables(
          key, {k: v.shape for k, v in batch.items()}
        )['params']
      )(jax.random.key(3)),
      jax.jit(lambda key: transformer.init_params(config, key))(
        jax.random.key(3)
      ),
    )
  )
  assert theirs.keys() == ours.keys()
  for path, expected in theirs.items():
    np.testing.assert_allclose(ours[path], expected, rtol=1e-6, err_msg=path)


@CONFIGS
@PACKED
def test_logits_loss_and_gradients(config, packed):
  params, batch = random_params(config, 0), make_batch(packed)
  model = t5x_model(config, z_loss=1e-2, label_smoothing=0.1)

  @jax.jit
  def theirs(params):
    def total(params):
      value, metrics = model.loss_fn(params, batch, None)
      return value, (metrics, model._compute_logits(params, batch))

    return jax.value_and_grad(total, has_aux=True)(params)

  @jax.jit
  def ours(params):
    def total(params):
      value, metrics = loss(
        config, params, batch, z_loss=1e-2, label_smoothing=0.1
      )
      return value, (metrics, transformer.logits(config, params, batch))

    return jax.value_and_grad(total, has_aux=True)(params)

  (their_loss, (their_metrics, their_logits)), their_gradient = theirs(params)
  (our_loss, (our_metrics, our_logits)), our_gradient = ours(params)
  # All positions, padding as well.
  np.testing.assert_allclose(our_logits, their_logits, atol=ATOL)
  np.testing.assert_allclose(our_loss, their_loss, rtol=1e-5)
  np.testing.assert_allclose(our_metrics.loss_sum, our_loss)
  np.testing.assert_allclose(
    our_metrics.z_loss_sum, their_metrics['z_loss'].total, rtol=1e-5
  )
  np.testing.assert_allclose(
    our_metrics.weight_sum, batch['decoder_loss_weights'].sum()
  )
  # Not T5X's metric of that name, for which a weight of 0.5 counts as 1.
  correct = models.compute_weighted_accuracy(
    their_logits, batch['decoder_target_tokens'], batch['decoder_loss_weights']
  )
  np.testing.assert_allclose(our_metrics.correct_sum, correct)
  expected = paths.flatten(their_gradient)
  for path, gradient in paths.flatten(our_gradient).items():
    scale = np.max(np.abs(expected[path]))
    np.testing.assert_allclose(
      gradient, expected[path], atol=2e-5 * scale, err_msg=path
    )


def test_logits_in_bfloat16():
  config = dataclasses.replace(UNTIED, dtype='bfloat16')
  params, batch = random_params(config, 1), make_batch(packed=True)
  ours = jax.jit(lambda p: transformer.logits(config, p, batch))(params)
  theirs = jax.jit(lambda p: t5x_model(config)._compute_logits(p, batch))(
    params
  )
  assert ours.dtype == theirs.dtype == jnp.float32
  np.testing.assert_allclose(ours, theirs, atol=0.02 * np.max(np.abs(theirs)))


def test_dropout_is_at_the_same_places(monkeypatch):
  # Masks drawn by count instead of by key: equal logits mean the same masks,
  # of the same shapes, in the same order, at the same places.
  config = UNTIED.with_dropout(0.4)
  params, batch = random_params(config, 2), make_batch(packed=False)
  draws = []

  def bernoulli(key, p=0.5, shape: Any = None):
    draws.append((float(p), tuple(shape)))
    return np.random.default_rng(len(draws)).random(shape) < p

  monkeypatch.setattr(jax.random, 'bernoulli', bernoulli)
  key = jax.random.key(0)
  theirs = t5x_model(config)._compute_logits(params, batch, key)
  their_draws = draws.copy()
  draws.clear()
  ours = transformer.logits(config, params, batch, dropout_key=key)
  assert draws == their_draws
  # Embeddings and last norms: 4. A layer: 2 (encoder) or 3 (decoder) residual
  # branches, 1 or 2 attentions, 1 feed-forward.
  assert len(draws) == 4 + 1 * (2 + 1 + 1) + 2 * (3 + 2 + 1)
  np.testing.assert_allclose(ours, theirs, atol=5 * ATOL)


@pytest.mark.parametrize('bidirectional', [True, False])
def test_buckets(bidirectional):
  from t5x.examples.t5 import layers as t5x_layers  # type: ignore

  relative = np.arange(-3000, 3001)
  np.testing.assert_array_equal(
    layers.position_bucket(jnp.asarray(relative), bidirectional=bidirectional),
    t5x_layers.RelativePositionBiases._relative_position_bucket(
      relative, bidirectional=bidirectional
    ),
  )


LENGTH = 10
# Draws for which T5X's output ends at different lengths, or not at all.
SEEDS = {UNTIED: 9, TIED: 65}


def decode_cases():
  rng = np.random.default_rng(5)
  return random_tokens(rng, rng.integers(2, 9, 12), 9)


def t5x_decode(config, params, tokens, decode_fn, *, beams=1, **options):
  """T5X's prediction for a batch, best sequence and score."""
  model = t5x_model(config, decode_fn=decode_fn)
  batch = {
    'encoder_input_tokens': tokens,
    'decoder_input_tokens': np.zeros((len(tokens), LENGTH), np.int32),
  }
  tokens, aux = jax.jit(
    lambda params: model.predict_batch_with_aux(
      params, batch, decoder_params={**options}, num_decodes=beams
    )
  )(params)
  return tokens, aux['scores']


def assert_equal_to_t5x(found, expected, scores):
  expected = np.asarray(expected)
  ends = {row.tolist().index(1) for row in expected if 1 in row}
  assert len(ends) > 1, 'the case shows little'
  np.testing.assert_array_equal(found.tokens, expected)
  np.testing.assert_allclose(found.scores, scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ('config', 'options'),
  [
    (UNTIED, {'temperature': 0.0, 'topk': 0}),
    (UNTIED, {'temperature': 1.0, 'topk': 1}),
    (TIED, {'temperature': 0.0, 'topk': 0}),
  ],
  ids=['untied-cold', 'untied-topk', 'tied-cold'],
)
def test_greedy(config, options):
  params, tokens = random_params(config, SEEDS[config], 0.8), decode_cases()
  expected, scores = t5x_decode(
    config,
    params,
    tokens,
    t5x_decoding.temperature_sample,
    rescale_log_probs=False,
    **options,
  )
  found = decode(config, params, tokens, max_decode_len=LENGTH)
  assert_equal_to_t5x(found, expected, scores)


@pytest.mark.parametrize(
  ('config', 'beams', 'alpha'),
  [(UNTIED, 2, 0.6), (UNTIED, 4, 0.6), (UNTIED, 4, 0.0), (TIED, 4, 0.6)],
  ids=['untied-2-0.6', 'untied-4-0.6', 'untied-4-0', 'tied-4-0.6'],
)
def test_beam_search(config, beams, alpha):
  params, tokens = random_params(config, SEEDS[config], 0.8), decode_cases()
  expected, scores = t5x_decode(
    config,
    params,
    tokens,
    t5x_decoding.beam_search,
    beams=beams,
    alpha=alpha,
  )
  found = decode(
    config,
    params,
    tokens,
    max_decode_len=LENGTH,
    beam_size=beams,
    alpha=alpha,
  )
  assert_equal_to_t5x(found, expected, scores)


@pytest.mark.parametrize('size', ['small', 'base', 'large', 'xl', 'xxl'])
def test_model_files_have_t5x_sizes(size):
  root = gin_path.t5x_root()
  assert root is not None

  def theirs(name):
    text = (root / f't5x/examples/t5/t5_1_1/{name}.gin').read_text()
    block = text.split('network.T5Config:')[1]
    pairs = re.findall(r'^  (\w+) = ([^%@#\n]+)', block, re.M)
    return {k.upper(): ast.literal_eval(v.strip()) for k, v in pairs}

  ours = (gin_path.root() / f'models/t5_1_1_{size}.gin').read_text()
  found = {
    k: ast.literal_eval(v) for k, v in re.findall(r'^(\w+) = (.*)$', ours, re.M)
  }
  expected = {**theirs('base'), **theirs(size)}
  # T5X's files choose the dtype too; here sizes only.
  assert expected.pop('DTYPE') == 'bfloat16'
  assert found == expected
