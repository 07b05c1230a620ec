"""Our paths of T5's tensors, and the names that Hugging Face has for them.

PyTorch stores the matrix of a linear map as [out, in] and we as [in, out]; the
table of relative positions is transposed as well, the embedding is not.
"""

from collections.abc import Iterator
from typing import NamedTuple

from dst_t5x.network.network_config import NetworkConfig

NUM_BUCKETS = 32
HEAD = 'lm_head.weight'
HEAD_PATH = 'decoder/logits_dense/kernel'
EMBEDDING = 'shared.weight'
EMBEDDING_PATH = 'token_embedder/embedding'
# Copies of the embedding that some files hold.
COPIES = ('encoder.embed_tokens.weight', 'decoder.embed_tokens.weight')
# Left over from the first conversion of T5; no network uses it.
IGNORED = (
  'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight',
)
_PROJECTIONS = {'q': 'query', 'k': 'key', 'v': 'value'}


class Counterpart(NamedTuple):
  """One tensor in both layouts.

  Attributes:
    name: Hugging Face's name.
    shape: shape in our layout.
    transposed: whether Hugging Face stores it transposed.
  """

  name: str
  shape: tuple[int, ...]
  transposed: bool


def table(config: NetworkConfig) -> dict[str, Counterpart]:
  """Returns every tensor of a network by our path.

  Args:
    config: configuration of the network.

  Returns:
    Counterparts by our path, sorted.

  Example:
    >>> counterparts = table(NetworkConfig(8, 4, 1, 1, 1, 4, 8))
    >>> counterparts['encoder/layers_0/mlp/wo/kernel'].name
    'encoder.block.0.layer.1.DenseReluDense.wo.weight'
  """
  width, heads = config.emb_dim, config.num_heads
  counterparts = {
    EMBEDDING_PATH: Counterpart(EMBEDDING, (config.vocab_size, width), False)
  }
  if not config.logits_via_embedding:
    counterparts[HEAD_PATH] = Counterpart(
      HEAD, (width, config.vocab_size), True
    )
  for stack in ('encoder', 'decoder'):
    first = f'{stack}.block.0.layer.0.SelfAttention'
    counterparts[f'{stack}/relpos_bias/rel_embedding'] = Counterpart(
      f'{first}.relative_attention_bias.weight', (heads, NUM_BUCKETS), True
    )
    counterparts[f'{stack}/{stack}_norm/scale'] = Counterpart(
      f'{stack}.final_layer_norm.weight', (width,), False
    )
    count = getattr(config, f'num_{stack}_layers')
    for i in range(count):
      path, name = f'{stack}/layers_{i}', f'{stack}.block.{i}.layer'
      for subpath, subname, counterpart in _layer(config, stack):
        counterparts[f'{path}/{subpath}'] = counterpart._replace(
          name=f'{name}.{subname}'
        )
  return {path: counterparts[path] for path in sorted(counterparts)}


def _layer(
  config: NetworkConfig, stack: str
) -> Iterator[tuple[str, str, Counterpart]]:
  """Yields path and name within a layer, and a counterpart without a name."""
  if stack == 'encoder':
    attentions = [('attention', 'attention', 'SelfAttention')]
  else:
    attentions = [
      ('self_attention', 'self_attention', 'SelfAttention'),
      ('encoder_decoder_attention', 'cross_attention', 'EncDecAttention'),
    ]
  width, inner = config.emb_dim, config.num_heads * config.head_dim
  scale = Counterpart('', (width,), False)
  for i, (path, norm, name) in enumerate(attentions):
    for letter, projection in _PROJECTIONS.items():
      yield (
        f'{path}/{projection}/kernel',
        f'{i}.{name}.{letter}.weight',
        Counterpart('', (width, inner), True),
      )
    yield (
      f'{path}/out/kernel',
      f'{i}.{name}.o.weight',
      Counterpart('', (inner, width), True),
    )
    yield f'pre_{norm}_layer_norm/scale', f'{i}.layer_norm.weight', scale
  last = len(attentions)
  gates = len(config.mlp_activations)
  for i in range(gates):
    gate = 'wi' if gates == 1 else f'wi_{i}'
    yield (
      f'mlp/{gate}/kernel',
      f'{last}.DenseReluDense.{gate}.weight',
      Counterpart('', (width, config.mlp_dim), True),
    )
  yield (
    'mlp/wo/kernel',
    f'{last}.DenseReluDense.wo.weight',
    Counterpart('', (config.mlp_dim, width), True),
  )
  yield 'pre_mlp_layer_norm/scale', f'{last}.layer_norm.weight', scale
