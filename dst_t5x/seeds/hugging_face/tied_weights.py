"""Which tensors of a Hugging Face file are the embedding and the output layer.

Files may hold the embedding several times, and the output layer or not.
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
  """Returns the embedding's name, and drops the copies of it.

  Args:
    files: of the tensors, by name.
    stored: shape and dtype of the tensors; copies are taken out.
    location: of the seed, for errors.

  Returns:
    The name.

  Raises:
    SeedError: if there is none, or a copy differs.

  Example:
    >>> held = {'shared.weight': jax.ShapeDtypeStruct((8, 4), float)}
    >>> embedding({'shared.weight': 'model.safetensors'}, held, 'here')
    'shared.weight'
  """
  held = [n for n in (names_of.EMBEDDING, *names_of.COPIES) if n in stored]
  if not held:
    raise SeedError(f'the seed {location} lacks {names_of.EMBEDDING!r}')
  for copy in held[1:]:
    if not _same(files, stored, held[0], copy, location):
      raise SeedError(
        f'the seed {location} holds {copy!r}, which differs from {held[0]!r}; '
        'T5 has one embedding for both stacks'
      )
    del stored[copy]
  return held[0]


def head(
  config: Mapping[str, Any],
  files: Mapping[str, str],
  stored: Specs,
  embedding: str,
  location: str,
) -> str | None:
  """Returns the name of the output layer.

  Args:
    config: what config.json holds.
    files: of the tensors, by name.
    stored: shape and dtype of the tensors; a copy of the embedding is taken
      out.
    embedding: its name.
    location: of the seed, for errors.

  Returns:
    The name; None if it is the embedding, scaled. It can be the embedding's,
    too: then it shares the values, but is not scaled.

  Raises:
    SeedError: if file and config.json contradict each other.

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
  found = []
  for name in (one, other):
    with safetensors_parts.opened(files[name], location) as handle:
      part = safetensors_parts.part(handle, name, at, location)
      found.append(fingerprints.digest(part, name))
  return found[0] == found[1]
