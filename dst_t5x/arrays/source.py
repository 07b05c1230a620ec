"""What a checkpoint can do once it is opened, whatever its layout."""

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import jax

from dst_t5x.arrays import fingerprints


class Source(Protocol):
  """A checkpoint that was opened, and of which only the table was read.

  Names of parameters are our paths, such as 'encoder/layers_0/mlp/wo/kernel'.
  """

  @property
  def location(self) -> str:
    """What was opened, to open it again."""
    ...

  @property
  def layout(self) -> str:
    """'t5x', 'orbax', 'hf' or 'dst_t5x'."""
    ...

  @property
  def step(self) -> int | None:
    """The checkpoint's own step, if it tells; counts pretraining."""
    ...

  @property
  def config(self) -> dict[str, Any] | None:
    """The network's configuration, if the checkpoint tells."""
    ...

  def specs(self) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shape and dtype of every parameter, as they lie on the disk."""
    ...

  def read(
    self,
    shardings: Mapping[str, jax.sharding.Sharding] | None = None,
    dtype: Any = None,
    names: Collection[str] | None = None,
  ) -> dict[str, Any]:
    """Reads parameters.

    Args:
      shardings: where every parameter goes; each process then reads only what
        its devices hold. None for NumPy arrays on the host.
      dtype: what to cast to; None for the dtype on the disk.
      names: which parameters; None for all.

    Returns:
      `np.ndarray` or `jax.Array` by name, in sorted order.

    Raises:
      SeedError: if a name is unknown or lacks a sharding, or something is
        missing or damaged.
    """
    ...

  def digests(
    self, names: Collection[str] | None = None
  ) -> dict[str, fingerprints.TensorDigest]:
    """Hashes parameters, one at a time in the host's memory.

    Several processes can share the names between them:
    `fingerprints.combine` takes what they found together.

    Args:
      names: which parameters; None for all.

    Returns:
      Digests by name, of the bits on the disk.

    Raises:
      SeedError: if a name is unknown, or something is missing or damaged.
    """
    ...
