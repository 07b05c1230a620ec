"""Infers the configuration of a network from the shapes of its parameters."""

from collections.abc import Mapping

from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.seeds.errors import SeedError
from dst_t5x.seeds.hugging_face import tensor_names as names_of
from dst_t5x.seeds.tensor_reading import Specs


def from_shapes(specs: Specs, location: str) -> NetworkConfig:
  """Returns the configuration of the T5 1.1 network with these parameters.

  Shapes do not determine everything. A feed-forward module with two gates is
  taken for the gated GELU of T5 1.1, one with a single gate for the ReLU of T5;
  the dropout rate is taken to be 0.

  Args:
    specs: shapes by path.
    location: location of the seed, for errors.

  Returns:
    The configuration.

  Raises:
    SeedError: if no such network has these parameters.

  Example:
    >>> from dst_t5x.network.transformer import param_shapes
    >>> config = NetworkConfig(8, 4, 2, 1, 3, 4, 8)
    >>> from_shapes(param_shapes(config), 'here') == config
    True
  """
  try:
    vocab_size, emb_dim = specs[names_of.EMBEDDING_PATH].shape
    (num_heads, _) = specs['encoder/relpos_bias/rel_embedding'].shape
    (_, inner) = specs['encoder/layers_0/attention/query/kernel'].shape
    (mlp_dim, _) = specs['encoder/layers_0/mlp/wo/kernel'].shape
  except (KeyError, ValueError) as error:
    raise SeedError(
      f'{location} holds no T5 1.1: looked for {error}; it has '
      f'{len(specs)} tensors, among them {", ".join(list(specs)[:3])}'
    ) from error
  gated = 'encoder/layers_0/mlp/wi_0/kernel' in specs
  config = NetworkConfig(
    vocab_size=vocab_size,
    emb_dim=emb_dim,
    num_heads=num_heads,
    num_encoder_layers=_layers(specs, 'encoder'),
    num_decoder_layers=_layers(specs, 'decoder'),
    head_dim=inner // num_heads,
    mlp_dim=mlp_dim,
    mlp_activations=('gelu', 'linear') if gated else ('relu',),
    logits_via_embedding=names_of.HEAD_PATH not in specs,
  )
  check(config, specs, location)
  return config


def check(config: NetworkConfig, specs: Specs, location: str) -> None:
  """Raises unless a network has exactly these parameters.

  Args:
    config: configuration of the network.
    specs: shapes by path.
    location: location of the seed, for errors.

  Raises:
    SeedError: naming the first parameter that is missing, extra or of another
      shape, and how many more there are.

  Example:
    >>> check(NetworkConfig(8, 4, 1, 1, 1, 4, 8), {}, 'here')
    Traceback (most recent call last):
    ...
    dst_t5x.seeds.errors.SeedError: here does not fit T5 1.1: it \
    lacks 'decoder/decoder_norm/scale' (and 28 more)
  """
  expected = {k: entry.shape for k, entry in names_of.table(config).items()}
  problems = [
    *(f'lacks {name!r}' for name in expected if name not in specs),
    *(f'has {name!r}, too' for name in specs if name not in expected),
    *(
      f'has {name!r} in shape {specs[name].shape} instead of {shape}'
      for name, shape in expected.items()
      if name in specs and specs[name].shape != shape
    ),
  ]
  if problems:
    raise SeedError(
      f'{location} does not fit T5 1.1: it {problems[0]}'
      + (f' (and {len(problems) - 1} more)' if len(problems) > 1 else '')
    )


def _layers(specs: Mapping[str, object], stack: str) -> int:
  prefix = f'{stack}/layers_'
  return len({n.split('/')[1] for n in specs if n.startswith(prefix)}) or 1
