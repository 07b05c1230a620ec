"""The training loss: cross entropy with z-loss, as T5X computes it."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int

from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.network.transformer import logits as network_logits


class LossMetrics(NamedTuple):
  """Sums over the batch, float32 scalars.

  Attributes:
    loss_sum: cross entropy and z-loss.
    z_loss_sum: z-loss alone.
    weight_sum: weights of the target tokens.
    correct_sum: weights of those that the largest logit names.
  """

  loss_sum: Float32[Array, '']
  z_loss_sum: Float32[Array, '']
  weight_sum: Float32[Array, '']
  correct_sum: Float32[Array, '']


def cross_entropy(
  logits: Float32[Array, '... v'],
  targets: Int[Array, '...'],
  *,
  z_loss: float = 0.0,
  label_smoothing: float = 0.0,
) -> tuple[Float32[Array, '...'], Float32[Array, '...']]:
  """Returns the loss of every token, and its z-loss.

  −Σ_v q_v log p_v − H(q) + z_loss · (log Z)², with q the smoothed target and
  H its entropy, so that a perfect prediction costs only z-loss.

  Args:
    logits: any leading shape.
    targets: token ids of that shape.
    z_loss: weight of the squared log normaliser.
    label_smoothing: probability spread over the other tokens.

  Returns:
    Loss with z-loss, and z-loss alone.

  Source: T5X, `losses.compute_weighted_cross_entropy`.
  """
  size = logits.shape[-1]
  log_z = jax.scipy.special.logsumexp(logits, axis=-1)
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  confidence = 1.0 - label_smoothing
  rest = label_smoothing / max(size - 1, 1)
  if label_smoothing:
    entropy = -(
      confidence * math.log(confidence)
      + (size - 1) * rest * math.log(rest + 1e-20)
    )
    total = jnp.sum(logits, axis=-1) - size * log_z
    loss = -((confidence - rest) * (chosen - log_z) + rest * total) - entropy
  else:
    loss = log_z - chosen
  penalty = z_loss * jnp.square(log_z)
  return loss + penalty, penalty


def loss(
  config: NetworkConfig,
  params: Any,
  batch: Mapping[str, Any],
  *,
  z_loss: float = 1e-4,
  label_smoothing: float = 0.0,
  dropout_key: jax.Array | None = None,
) -> tuple[Float32[Array, ''], LossMetrics]:
  """Returns the summed loss of a batch.

  Args:
    config: sizes of the network.
    params: parameters of the network, as a nested dict.
    batch: see `network.logits`; decoder_loss_weights weigh the target tokens,
      without them every token but padding counts 1.
    z_loss: weight of the squared log normaliser.
    label_smoothing: probability spread over the other tokens.
    dropout_key: None for no dropout.

  Returns:
    The sum, and all sums.
  """
  logits = network_logits(config, params, batch, dropout_key=dropout_key)
  targets = batch['decoder_target_tokens']
  weights = batch.get('decoder_loss_weights')
  weights = targets > 0 if weights is None else weights
  weights = jnp.asarray(weights, jnp.float32)
  losses, penalties = cross_entropy(
    logits, targets, z_loss=z_loss, label_smoothing=label_smoothing
  )
  right = jnp.argmax(logits, axis=-1) == targets
  metrics = LossMetrics(
    loss_sum=jnp.sum(losses * weights),
    z_loss_sum=jnp.sum(penalties * weights),
    weight_sum=jnp.sum(weights),
    correct_sum=jnp.sum(right * weights),
  )
  return metrics.loss_sum, metrics
