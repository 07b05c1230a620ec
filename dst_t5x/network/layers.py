"""The layers of T5 1.1, with T5X's names, shapes and initialisers."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

MASKED = -1e10  # added to the logits of positions that may not be seen
NUM_BUCKETS = 32
MAX_DISTANCE = 128

_FAN_IN_NORMAL = nn.initializers.variance_scaling(1.0, 'fan_in', 'normal')
_FAN_IN_TRUNCATED = nn.initializers.variance_scaling(
  1.0, 'fan_in', 'truncated_normal'
)
_FAN_AVG_UNIFORM = nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform')


class RMSNorm(nn.Module):
  """Scales to a root mean square of 1, then by a learned vector."""

  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Float[Array, '... d']) -> Float[Array, '... d']:
    """Returns the normalised input, computed in float32."""
    x = x.astype(jnp.float32)
    mean = jnp.mean(jax.lax.square(x), axis=-1, keepdims=True)
    y = (x * jax.lax.rsqrt(mean + 1e-6)).astype(self.dtype)
    scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
    return y * scale.astype(self.dtype)


class Dense(nn.Module):
  """A linear map without bias, its kernel a matrix."""

  features: int
  dtype: str = 'float32'
  kernel_init: nn.initializers.Initializer = _FAN_IN_TRUNCATED

  @nn.compact
  def __call__(self, x: Float[Array, '... d']) -> Float[Array, '... f']:
    """Returns x W."""
    kernel = self.param(
      'kernel', self.kernel_init, (x.shape[-1], self.features)
    )
    return jnp.asarray(x, self.dtype) @ kernel.astype(self.dtype)


class Mlp(nn.Module):
  """The gated feed-forward module: W_o (act(W_0 x) · W_1 x)."""

  mlp_dim: int
  activations: tuple[str, ...]
  dropout_rate: float
  dtype: str

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b l d'], *, deterministic: bool
  ) -> Float[Array, 'b l d']:
    """Returns the module's output, of the input's shape."""
    gates = []
    for i, name in enumerate(self.activations):
      own = 'wi' if len(self.activations) == 1 else f'wi_{i}'
      gate = Dense(self.mlp_dim, self.dtype, name=own)(x)
      gates.append(gate if name == 'linear' else getattr(nn, name)(gate))
    y = functools.reduce(jnp.multiply, gates)
    y = nn.Dropout(self.dropout_rate, broadcast_dims=(-2,))(
      y, deterministic=deterministic
    )
    return Dense(x.shape[-1], self.dtype, name='wo')(y)


class Attention(nn.Module):
  """Multi-head attention; T5 folds the usual 1/√d into the initialiser."""

  num_heads: int
  head_dim: int
  emb_dim: int
  dropout_rate: float
  dtype: str

  def setup(self) -> None:
    """Makes the four projections."""
    joined = self.num_heads * self.head_dim

    def query_init(*args: object) -> jax.Array:
      return _FAN_IN_NORMAL(*args) / math.sqrt(self.head_dim)  # type: ignore

    dense = functools.partial(Dense, dtype=self.dtype)
    self.query = dense(joined, kernel_init=query_init)
    self.key = dense(joined, kernel_init=_FAN_IN_NORMAL)
    self.value = dense(joined, kernel_init=_FAN_IN_NORMAL)
    self.out = dense(self.emb_dim, kernel_init=_FAN_IN_NORMAL)

  def keys_values(
    self, x: Float[Array, 'b k d']
  ) -> tuple[Float[Array, 'b k h e'], Float[Array, 'b k h e']]:
    """Returns keys and values of what is attended to."""
    return self._split(self.key(x)), self._split(self.value(x))

  def attend(
    self,
    x: Float[Array, 'b q d'],
    keys: Float[Array, 'b k h e'],
    values: Float[Array, 'b k h e'],
    bias: Float[Array, '...'],
    *,
    deterministic: bool = True,
  ) -> Float[Array, 'b q d']:
    """Returns the output of queries from x over given keys and values.

    Args:
      x: what attends.
      keys: from `keys_values`.
      values: from `keys_values`.
      bias: broadcasts to [b, h, q, k]; `MASKED` hides a position.
      deterministic: no dropout.
    """
    weights = jnp.einsum('bqhe,bkhe->bhqk', self._split(self.query(x)), keys)
    weights = jax.nn.softmax(weights + bias.astype(weights.dtype))
    weights = weights.astype(self.dtype)
    if not deterministic and self.dropout_rate > 0.0:
      keep = 1.0 - self.dropout_rate
      shape = (*weights.shape[:-2], 1, weights.shape[-1])
      kept = jax.random.bernoulli(self.make_rng('dropout'), keep, shape)
      weights *= kept.astype(weights.dtype) / jnp.asarray(keep, weights.dtype)
    y = jnp.einsum('bhqk,bkhe->bqhe', weights, values)
    return self.out(y.reshape(*y.shape[:2], -1))

  def __call__(
    self,
    x: Float[Array, 'b q d'],
    over: Float[Array, 'b k d'],
    bias: Float[Array, '...'],
    *,
    deterministic: bool,
  ) -> Float[Array, 'b q d']:
    """Returns the output of x attending over `over`; see `attend`."""
    keys, values = self.keys_values(over)
    return self.attend(x, keys, values, bias, deterministic=deterministic)

  def _split(self, x: Array) -> Array:
    return x.reshape(*x.shape[:2], self.num_heads, self.head_dim)


class RelativePositionBias(nn.Module):
  """A learned bias for every head and bucket of relative position."""

  num_heads: int
  bidirectional: bool
  dtype: str

  @nn.compact
  def __call__(
    self, queries: Int[Array, ' q'], keys: Int[Array, ' k']
  ) -> Float[Array, '1 h q k']:
    """Returns the bias between query and key positions."""
    table = self.param(
      'rel_embedding', _FAN_AVG_UNIFORM, (self.num_heads, NUM_BUCKETS)
    )
    buckets = position_bucket(
      keys[None, :] - queries[:, None], bidirectional=self.bidirectional
    )
    return jnp.asarray(table, self.dtype)[:, buckets][None]


def position_bucket(
  relative: Int[Array, '*s'], *, bidirectional: bool
) -> Int[Array, '*s']:
  """Returns the bucket of a relative position, key minus query.

  Half of the buckets are for exact distances, the other half grow
  logarithmically up to 128. With both directions, each has half of them.

  Args:
    relative: key position minus query position, any shape.
    bidirectional: False if keys after the query are never seen.

  Returns:
    Numbers from 0 to 31, same shape.

  Example:
    >>> [int(i) for i in position_bucket(
    ...   jnp.array([-200, -1, 0, 1]), bidirectional=True)]
    [15, 1, 0, 17]

  Source: Raffel et al. 2020, section 2.1.
  """
  buckets = NUM_BUCKETS
  offset = jnp.zeros_like(relative)
  if bidirectional:
    buckets //= 2
    offset = jnp.where(relative > 0, buckets, 0)
    distance = jnp.abs(relative)
  else:
    distance = jnp.maximum(-relative, 0)
  table = jnp.asarray(_distance_buckets(buckets), relative.dtype)
  return offset + table[jnp.minimum(distance, MAX_DISTANCE)]


def _distance_buckets(buckets: int) -> np.ndarray:
  # NumPy's logarithm on every device, as in T5X: distances such as 32 lie on an
  # edge, where another rounding would put them into another bucket.
  distance = np.arange(MAX_DISTANCE + 1)
  exact = buckets // 2
  ratio = distance.astype(np.float32) / exact + np.finfo(np.float32).eps
  growth = np.log(ratio) / np.log(MAX_DISTANCE / exact)
  large = exact + (growth * (buckets - exact)).astype(np.int32)
  return np.where(distance < exact, distance, np.minimum(large, buckets - 1))


def mask_bias(
  queries: Int[Array, 'b q'], keys: Int[Array, 'b k']
) -> Float[Array, 'b 1 q k']:
  """Returns a bias that hides keys of other segments, and padding.

  Args:
    queries: segment of every query position, 0 for padding.
    keys: segment of every key position, 0 for padding.

  Returns:
    0 where the segments are equal and not padding, else `MASKED`.
  """
  same = queries[:, None, :, None] == keys[:, None, None, :]
  return bias_of(same & (keys > 0)[:, None, None, :])


def bias_of(seen: Bool[Array, '*s']) -> Float[Array, '*s']:
  """Returns 0 where True and `MASKED` where False."""
  return jnp.where(seen, jnp.float32(0.0), jnp.float32(MASKED))
