"""The loss against NumPy in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dst_t5x.arrays import paths
from dst_t5x.network import token_loss as loss_module
from dst_t5x.network import transformer
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.network.token_loss import cross_entropy, loss

CONFIG = NetworkConfig(
  vocab_size=7,
  emb_dim=4,
  num_heads=1,
  num_encoder_layers=1,
  num_decoder_layers=1,
  head_dim=4,
  mlp_dim=8,
)
BATCH: dict[str, Any] = {
  'encoder_input_tokens': np.array([[3, 4, 1], [2, 1, 0]], np.int32),
  'decoder_input_tokens': np.array([[0, 5, 6, 2], [0, 3, 0, 0]], np.int32),
  'decoder_target_tokens': np.array([[5, 6, 2, 1], [3, 1, 0, 0]], np.int32),
}
WEIGHTS: Any = np.array([[1, 0, 0.5, 1], [2, 1, 0, 0]], np.float32)


logits_of = jax.jit(transformer.logits, static_argnums=0)
loss_of = jax.jit(
  loss, static_argnums=0, static_argnames=('z_loss', 'label_smoothing')
)


@pytest.fixture(scope='module')
def params():
  rng = np.random.default_rng(0)
  return paths.unflatten(
    {
      path: rng.normal(0.0, 0.5, leaf.shape).astype(np.float32)
      for path, leaf in transformer.param_shapes(CONFIG).items()
    }
  )


def reference(logits: Any, targets, z_loss, smoothing) -> Any:
  """Loss and z-loss of every token, written out term by term.

  Cross entropy with the smoothed target, less the least that it can be, plus
  z_loss · (log Σ exp)²: Szegedy et al. 2016 (section 7) and Mesh TensorFlow's
  z-loss.
  """
  logits = np.float64(logits)
  size = logits.shape[-1]
  losses = np.zeros(targets.shape)
  penalties = np.zeros(targets.shape)
  for place in np.ndindex(targets.shape):
    row = logits[place]
    log_z = np.log(np.sum(np.exp(row - row.max()))) + row.max()
    for token in range(size):
      wanted = smoothing / (size - 1)
      if token == targets[place]:
        wanted = 1.0 - smoothing
      if wanted:
        losses[place] -= wanted * (row[token] - log_z - np.log(wanted))
    penalties[place] = z_loss * log_z**2
  return losses + penalties, penalties


@pytest.fixture(params=[0.0, 1e-4, 0.1])
def z_loss(request):
  return request.param


@pytest.fixture(params=[0.0, 0.1])
def smoothing(request):
  return request.param


def test_cross_entropy(z_loss, smoothing):
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(0, 3, (2, 3, 5)), jnp.float32)
  targets = jnp.asarray(rng.integers(0, 5, (2, 3)))
  found = cross_entropy(
    logits, targets, z_loss=z_loss, label_smoothing=smoothing
  )
  expected = reference(logits, targets, z_loss, smoothing)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_gradient_of_cross_entropy(z_loss, smoothing):
  # d/dlogit = p (1 + 2 z_loss log Z) − q, with q the smoothed target.
  rng = np.random.default_rng(1)
  logits = jnp.asarray(rng.normal(0, 3, (4, 5)), jnp.float32)
  targets = jnp.asarray(rng.integers(0, 5, 4))

  def total(logits):
    losses, _ = cross_entropy(
      logits, targets, z_loss=z_loss, label_smoothing=smoothing
    )
    return jnp.sum(losses)

  log_z = np.log(
    np.sum(np.exp(np.asarray(logits, np.float64)), axis=-1, keepdims=True)
  )
  wanted = np.full((4, 5), smoothing / 4)
  wanted[np.arange(4), targets] = 1.0 - smoothing
  expected = np.exp(logits - log_z) * (1 + 2 * z_loss * log_z) - wanted
  np.testing.assert_allclose(jax.grad(total)(logits), expected, atol=1e-5)


def test_large_logits_stay_finite():
  logits = jnp.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]])
  targets = jnp.array([0, 0])
  losses, _ = cross_entropy(logits, targets, z_loss=0.0)
  np.testing.assert_allclose(losses, [0.0, 2e4], rtol=1e-6)


def test_smoothing_of_a_perfect_prediction_costs_nothing():
  wanted = jnp.array([0.9, 0.05, 0.05])
  losses, _ = cross_entropy(
    jnp.log(wanted)[None], jnp.array([0]), label_smoothing=0.1
  )
  np.testing.assert_allclose(losses, [0.0], atol=1e-6)


@pytest.mark.parametrize(('z_loss', 'smoothing'), [(1e-4, 0.0), (0.1, 0.1)])
def test_sums_of_a_batch(params, z_loss, smoothing):
  batch = {**BATCH, 'decoder_loss_weights': WEIGHTS}
  total, metrics = loss_of(
    CONFIG, params, batch, z_loss=z_loss, label_smoothing=smoothing
  )
  logits = logits_of(CONFIG, params, batch)
  targets = batch['decoder_target_tokens']
  losses, penalties = reference(logits, targets, z_loss, smoothing)
  right = np.argmax(logits, axis=-1) == targets
  np.testing.assert_allclose(total, np.sum(losses * WEIGHTS), rtol=1e-5)
  np.testing.assert_allclose(
    metrics,
    [
      np.sum(losses * WEIGHTS),
      np.sum(penalties * WEIGHTS),
      5.5,
      np.sum(right * WEIGHTS),
    ],
    rtol=1e-5,
    atol=1e-7,
  )


def test_accuracy_counts_what_is_right(params):
  # Targets are what the network says, except at one position of weight 2.
  batch = {**BATCH, 'decoder_target_tokens': np.ones((2, 4), np.int32)}
  said = np.argmax(logits_of(CONFIG, params, batch), axis=-1)
  targets = np.where(said == 0, 1, said).astype(np.int32)
  targets[1, 0] = 1 + said[1, 0] % 6
  batch['decoder_target_tokens'] = targets
  batch['decoder_loss_weights'] = WEIGHTS
  _, metrics = loss_of(CONFIG, params, batch)
  expected = np.sum(WEIGHTS * (said == targets))
  assert metrics.correct_sum == expected
  assert 0 < expected < metrics.weight_sum


def test_without_weights_every_token_but_padding_counts(params):
  marked = {
    **BATCH,
    'decoder_loss_weights': np.array([[1, 1, 1, 1], [1, 1, 0, 0]], np.float32),
  }
  found, expected = (
    loss_of(CONFIG, params, batch)[1] for batch in (BATCH, marked)
  )
  assert found.weight_sum == 6
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('key', [None, 'a key'])
def test_dropout_key_reaches_the_network(monkeypatch, params, key):
  given = []

  def logits(config, params, batch, *, dropout_key):
    given.append(dropout_key)
    return jnp.zeros((2, 4, 7))

  monkeypatch.setattr(loss_module, 'network_logits', logits)
  loss(CONFIG, params, BATCH, dropout_key=key)
  assert given == [key]
