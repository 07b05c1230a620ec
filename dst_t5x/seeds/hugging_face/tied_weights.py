"""Finds the embedding and the output layer among the tensors of a file.

Hugging Face files may hold several copies of the embedding, and they may or may
not hold the output layer.
"""

from collections.abc import Mapping
from typing import Any

import jax

from dst_t5x.arrays import fingerprints
from dst_t5x.seeds import safetensors_parts, tensor_reading
from dst_t5x.seeds.errors import SeedError
from dst_t5x.seeds.hugging_face import model_config
from dst_t5x.seeds.hugging_face import tensor_names as names_of

Specs = dict[str, jax.ShapeDtypeStruct]


def embedding(
  files: Mapping[str, str],
  stored: Specs,
  location: str,
) -> str:
  """Returns the name of the embedding, and removes its copies from a table.

  Args:
    files: path of the file that holds a tensor, by the tensor's name.
    stored: shape and dtype of the tensors, by name; copies of the embedding
      are removed from it.
    location: location of the seed, for errors.

  Returns:
    The name.

  Raises:
    SeedError: if there is none, or a copy differs.

  Example:
    >>> stored = {'shared.weight': jax.ShapeDtypeStruct((8, 4), float)}
    >>> embedding({'shared.weight': 'model.safetensors'}, stored, 'here')
    'shared.weight'
  """
  copies = [n for n in (names_of.EMBEDDING, *names_of.COPIES) if n in stored]
  if not copies:
    raise SeedError(f'the seed {location} lacks {names_of.EMBEDDING!r}')
  first, *others = copies
  for other in others:
    if not _same(files, stored, first, other, location):
      raise SeedError(
        f'the seed {location} holds {other!r}, which differs from {first!r}; '
        'T5 has one embedding for both stacks'
      )
    del stored[other]
  return first


def head(
  config: Mapping[str, Any],
  files: Mapping[str, str],
  stored: Specs,
  embedding: str,
  location: str,
) -> str | None:
  """Returns the name of the tensor that is the output layer.

  Args:
    config: content of config.json.
    files: path of the file that holds a tensor, by the tensor's name.
    stored: shape and dtype of the tensors, by name; an output layer that only
      copies the embedding is removed from it.
    embedding: name of the embedding.
    location: location of the seed, for errors.

  Returns:
    The name. None if the scaled embedding serves as output layer; the name of
    the embedding if it serves unscaled.

  Raises:
    SeedError: if the file and config.json contradict each other.

  Example:
    >>> config = {'tie_word_embeddings': True}
    >>> head(config, {}, {}, 'shared.weight', 'here') is None
    True
  """
  scaled = model_config.scaled(config)
  if names_of.HEAD not in stored:
    if scaled:
      return None
    if config.get('scale_decoder_outputs') is False:
      return embedding  # shared with it, but not scaled
    raise SeedError(
      f'the seed {location} lacks {names_of.HEAD!r}, the output layer, which '
      'its config.json says is not the embedding'
    )
  if not scaled:
    return names_of.HEAD
  if _same(files, stored, embedding, names_of.HEAD, location):
    del stored[names_of.HEAD]
    return None
  raise SeedError(
    f'the seed {location} holds {names_of.HEAD!r}, which differs from the '
    'embedding, though its config.json says that they are tied; set '
    "'tie_word_embeddings' to false there if they are not"
  )


def _same(
  files: Mapping[str, str],
  stored: Specs,
  one: str,
  other: str,
  location: str,
) -> bool:
  if stored[one] != stored[other]:
    return False
  at = tensor_reading.whole(stored[one].shape)
  digests = []
  for name in (one, other):
    with safetensors_parts.opened(files[name], location) as handle:
      part = safetensors_parts.part(handle, name, at, location)
      digests.append(fingerprints.digest(part, name))
  return digests[0] == digests[1]
