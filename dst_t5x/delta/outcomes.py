"""What has to hold after a delta was used, and whose fault it is if not."""

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from dst_t5x.arrays import fingerprints
from dst_t5x.delta.types import ResultMismatchError, SubsetDelta, WrongSeedError


def check_outcome(result: Mapping[str, Any], needed: str, what: str) -> None:
  """Checks a whole tree against a fingerprint.

  Args:
    result: the tree.
    needed: the fingerprint.
    what: was done, for the error.

  Raises:
    ResultMismatchError: if it is another.
  """
  found = fingerprints.fingerprint(result)
  if found != needed:
    raise ResultMismatchError(
      f'{what} gives parameters with the fingerprint {found}, and {needed} is '
      'needed: they differ from the seed outside the delta'
    )


def explain_result(
  found: str, names: Iterable[str], delta: SubsetDelta
) -> NoReturn:
  """Says whether the seed or the delta is to blame for a wrong outcome.

  Args:
    found: fingerprint of the parameters that the delta was applied to.
    names: of those parameters.
    delta: the delta.

  Raises:
    WrongSeedError: if the parameters are not the delta's seed.
    ResultMismatchError: if they are.
  """
  check_seed(found, names, delta)
  raise ResultMismatchError(
    'the seed is the right one, but the delta does not give the parameters '
    f'that it says, {delta.info.result_fingerprint}: it is damaged'
  )


def check_seed(found: str, names: Iterable[str], delta: SubsetDelta) -> None:
  """Checks that parameters are the ones that a delta was made from.

  Args:
    found: fingerprint of the parameters.
    names: of the parameters.
    delta: the delta, which fits them and replaces their values.

  Raises:
    WrongSeedError: if they differ from its seed elsewhere.
  """
  if found == delta.info.seed_fingerprint:
    return
  extra = [path for path in names if path not in delta.entries]
  hint = f'; the delta does not know {", ".join(extra)}' if extra else ''
  raise WrongSeedError(
    f'the parameters have the fingerprint {found}; the delta was made from '
    f'{delta.info.seed_fingerprint}, which has the same values at its '
    f'positions but differs elsewhere{hint}'
  )
