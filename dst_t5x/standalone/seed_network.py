"""The network that a seed's parameters belong to."""

from dst_t5x import seeds
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.network.transformer import param_shapes

# They say how a network is run, and its parameters do not depend on them.
_NOT_IN_THE_SEED = ('dropout_rate', 'dtype')


def network_config(
  seed: seeds.Seed, config: NetworkConfig | None = None
) -> NetworkConfig:
  """Returns the network of a seed, checked against the seed's parameters.

  Args:
    seed: the seed.
    config: the network that the caller expects; needed if the seed's file does
      not name one, and must agree with it if it does.

  Returns:
    The caller's config, or else the seed's.

  Raises:
    SeedError: if the seed's parameters are not those of the network.
    ValueError: if neither the seed nor the caller names a network, or they
      disagree.
  """
  stored = None if seed.config is None else NetworkConfig.from_dict(seed.config)
  if config is not None and stored is not None:
    _check_agreement(seed, stored, config)
  network = config or stored
  if network is None:
    raise ValueError(
      f'seed {seed.location!r} does not say what network it belongs to; name '
      'one, for instance --gin_file=models/t5_1_1_small.gin'
    )
  seeds.check_params(
    seed.params, param_shapes(network), origin=f'seed {seed.location!r}'
  )
  return network


def _check_agreement(
  seed: seeds.Seed, stored: NetworkConfig, expected: NetworkConfig
) -> None:
  in_seed, named = stored.to_dict(), expected.to_dict()
  differences = [
    f'{name}: {in_seed[name]!r} in the seed, {named[name]!r} named'
    for name in named
    if name not in _NOT_IN_THE_SEED and in_seed[name] != named[name]
  ]
  if differences:
    raise ValueError(
      f'seed {seed.location!r} belongs to another network: '
      + '; '.join(differences)
    )
