"""The protocol of an opened checkpoint that reads parameters by name.

It says nothing about layouts; the room `seeds` has a class for each of them.
"""

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import jax

from dst_t5x.arrays import fingerprints


class Source(Protocol):
  """An opened checkpoint: its table of tensors was read, no parameter yet.

  Parameters have our paths as names, such as 'encoder/layers_0/mlp/wo/kernel'.
  """

  @property
  def location(self) -> str:
    """Path or URL that opens the same checkpoint again."""
    ...

  @property
  def layout(self) -> str:
    """Name of the layout: 't5x', 'orbax', 'hf' or 'dst_t5x'."""
    ...

  @property
  def step(self) -> int | None:
    """The checkpoint's step, pretraining included; None if it has none."""
    ...

  @property
  def config(self) -> dict[str, Any] | None:
    """The network's configuration; None if the checkpoint lacks it."""
    ...

  def specs(self) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shape and dtype that every parameter has on the disk."""
    ...

  def read(
    self,
    shardings: Mapping[str, jax.sharding.Sharding] | None = None,
    dtype: Any = None,
    names: Collection[str] | None = None,
  ) -> dict[str, Any]:
    """Reads parameters.

    Args:
      shardings: sharding of every parameter, by name; each process then reads
        only what its devices hold. None for NumPy arrays on the host.
      dtype: dtype to cast to; None for the dtype on the disk.
      names: names of the parameters to read; None for all.

    Returns:
      `np.ndarray` or `jax.Array` by name, sorted by name.

    Raises:
      SeedError: if a name is unknown or lacks a sharding, or something is
        missing or damaged.
    """
    ...

  def digests(
    self, names: Collection[str] | None = None
  ) -> dict[str, fingerprints.TensorDigest]:
    """Hashes parameters, one at a time in the host's memory.

    Several processes can share the work: each hashes some of the names, and
    `fingerprints.combine` takes the digests of all of them.

    Args:
      names: names of the parameters to hash; None for all.

    Returns:
      Digests of the bits on the disk, by name.

    Raises:
      SeedError: if a name is unknown, or something is missing or damaged.
    """
    ...
