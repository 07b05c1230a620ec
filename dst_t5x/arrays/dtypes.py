"""The dtypes that parameters may have, in memory and in safetensors files."""

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

# NumPy's scalar type, and the code that safetensors writes for it.
_TABLE: tuple[tuple[Any, str], ...] = (
  (np.bool_, 'BOOL'),
  (np.float64, 'F64'),
  (np.float32, 'F32'),
  (np.float16, 'F16'),
  (ml_dtypes.bfloat16, 'BF16'),
  (np.int64, 'I64'),
  (np.int32, 'I32'),
  (np.int16, 'I16'),
  (np.int8, 'I8'),
  (np.uint64, 'U64'),
  (np.uint32, 'U32'),
  (np.uint16, 'U16'),
  (np.uint8, 'U8'),
)

# Dtypes by the name that they have in NumPy and JAX.
DTYPES: Mapping[str, np.dtype] = {
  np.dtype(scalar).name: np.dtype(scalar) for scalar, _ in _TABLE
}

# Codes of safetensors by NumPy's name of the dtype.
CODES: Mapping[str, str] = {
  np.dtype(scalar).name: code for scalar, code in _TABLE
}

# Dtypes by their code in safetensors.
BY_CODE: Mapping[str, np.dtype] = {
  code: np.dtype(scalar) for scalar, code in _TABLE
}
