"""Restored numbers in the dtype that they have in the run.

T5X restores parameters in the dtype that a configuration names, float32 unless
it says another, whatever was saved: bfloat16 parameters come back as float32.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from dst_t5x.arrays import flat_access


def as_in_run(value: Any, dtype: Any, *, name: str) -> Any:
  """Returns restored numbers in another dtype, bit for bit those of the run.

  Args:
    value: as it was restored, any shape.
    dtype: in the run.
    name: what it is, for the error.

  Returns:
    The same numbers in `dtype`.

  Raises:
    ValueError: if `dtype` cannot hold each of them.

  Example:
    >>> as_in_run(jnp.float32([1.5]), jnp.bfloat16, name='a value')
    Array([1.5], dtype=bfloat16)
  """
  dtype = jnp.dtype(dtype)
  if value.dtype == dtype:
    return value
  if jnp.promote_types(value.dtype, dtype) != value.dtype:
    raise ValueError(
      f'{name} was restored as {value.dtype}, and is {dtype} in this run: bind '
      "utils.SaveCheckpointConfig.dtype = 'float32', which is also what a "
      'resume restores, and which holds every bfloat16 as it is'
    )
  narrow, is_same = _narrowed(value, dtype)
  if not bool(is_same):
    raise ValueError(
      f'{name} was saved as {value.dtype}, and is {dtype} in this run, which '
      'would round it: resume with the dtype of parameters that the run began '
      'with'
    )
  return narrow


def as_in_run_by_path(
  values: Mapping[str, Any], shapes: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns restored parameters in their dtypes; see `as_in_run`.

  Args:
    values: by path; what is no array is left as it is.
    shapes: of the run's parameters, by path; what has no dtype says nothing.

  Returns:
    The same parameters.

  Raises:
    ValueError: if a dtype cannot hold a parameter.
  """
  return {
    path: as_in_run(value, shapes[path].dtype, name=f'parameter {path!r}')
    if isinstance(value, jax.Array) and hasattr(shapes.get(path), 'dtype')
    else value
    for path, value in values.items()
  }


@jax.jit(static_argnums=1)
def _narrowed(value: Any, dtype: Any) -> tuple[Any, Any]:
  narrow = value.astype(dtype)
  # As bits: 0.0 and −0.0 are different numbers here.
  back = flat_access.as_bits(narrow.astype(value.dtype))
  return narrow, jnp.all(back == flat_access.as_bits(value))
