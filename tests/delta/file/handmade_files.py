"""Delta files made byte by byte, as they should be or with one thing wrong."""

import hashlib
import json
import struct

import numpy as np

from dst_t5x.delta.file import numbers


def file_bytes(metadata, tensors) -> bytes:
  """A safetensors file that ends in the right hash, made without our code."""
  header, content = {'__metadata__': metadata}, b''
  for name, (dtype, shape, data) in tensors.items():
    end = len(content) + len(data)
    header[name] = {
      'dtype': dtype,
      'shape': shape,
      'data_offsets': [len(content), end],
    }
    content += data
  text = json.dumps(header).encode()
  data = struct.pack('<Q', len(text)) + text + content
  return sealed(data)


def sealed(data: bytes) -> bytes:
  """The same file with the right hash at its end."""
  return data[:-32] + hashlib.sha256(data[:-32]).digest()


def u8(data: bytes):
  """A tensor of bytes."""
  return ('U8', [len(data)], data)


TABLE = [['a', 'float32', [4], 2], ['b', 'float32', [3], 1]]

METADATA = {
  'format': 'dst_t5x.delta',
  'version': '1.0',
  'method': 'dst',
  'epsilon': '0.5',
  'silo_rule': 'none',
  'step': '3',
  'seed_fingerprint': 'sha256:' + 64 * '1',
  'replaced_hash': 'sha256:' + 64 * '2',
  'result_fingerprint': 'sha256:' + 64 * '3',
}


def tensors(table=TABLE, steps=(1, 2, 3), values=(1.0, 2.0, 3.0)):
  """The tensors of a small delta, in the order of the file."""
  return {
    'values.float32': (
      'F32',
      [len(values)],
      np.array(values, np.float32).tobytes(),
    ),
    'parameters': u8(json.dumps(table).encode()),
    'positions': u8(numbers.encode(np.array(steps, np.int64))),
    'sha256': u8(bytes(32)),
  }


def with_metadata(**changes):
  """The small delta's file with other metadata; None leaves a key out."""
  metadata = {**METADATA, **changes}
  return file_bytes(
    {k: v for k, v in metadata.items() if v is not None}, tensors()
  )


def with_tensors(**changes):
  """The small delta's file with other tensors; None leaves one out."""
  parts = {**tensors(), **changes}
  parts['sha256'] = parts.pop('sha256')
  return file_bytes(METADATA, {k: v for k, v in parts.items() if v is not None})


def with_table(table):
  """The small delta's file with another table of parameters."""
  text = table if isinstance(table, str) else json.dumps(table)
  return with_tensors(parameters=u8(text.encode()))


def with_row(**changes):
  """The small delta's file with its first row changed."""
  row = {'path': 'a', 'dtype': 'float32', 'shape': [4], 'count': 2, **changes}
  return with_table([list(row.values()), TABLE[1]])
