"""What apply, revert and swap refuse, by name, without changing anything."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dst_t5x import delta as delta_lib
from tests.delta.example_params import (
  BF16,
  HASH,
  SEED,
  A,
  B,
  as_kind,
  assert_same,
  with_info,
  with_leaf,
  with_value,
  without,
)


def with_entry(path, **changes):
  return lambda d: dataclasses.replace(
    d,
    entries={
      **d.entries,
      path: dataclasses.replace(d.entries[path], **changes),
    },
  )


def unchanged(x):
  return x


ENTRY = delta_lib.diff(SEED, A).entries['encoder/kernel']

INFINITE = ENTRY.values.copy()
INFINITE[-1] = np.inf
UNTOUCHED = next(i for i in range(384) if i not in ENTRY.positions.tolist())
REFUSALS = {
  'missing': (
    without('encoder/kernel'),
    unchanged,
    delta_lib.UnknownParameterError,
    "no 'encoder/kernel' among the parameters; nearest: 'decoder/k",
  ),
  'shape': (
    with_leaf('encoder/kernel', np.zeros((24, 16), np.float32)),
    unchanged,
    delta_lib.ShapeMismatchError,
    r"'encoder/kernel' has shape \(24, 16\); \(16, 24\)",
  ),
  'dtype': (
    with_leaf('encoder/kernel', np.zeros((16, 24), BF16)),
    unchanged,
    delta_lib.DtypeMismatchError,
    "'encoder/kernel' is bfloat16; float32 is needed",
  ),
  'no array': (
    with_leaf('encoder/kernel', 1.0),
    unchanged,
    delta_lib.UnknownParameterError,
    "'encoder/kernel' is a float",
  ),
  'other values at the positions': (
    with_value('encoder/kernel', ENTRY.positions[7], 0.125),
    unchanged,
    delta_lib.WrongSeedError,
    'another seed: at its positions',
  ),
  'minus zero at a position': (
    with_value('encoder/kernel', 3, 0.0),
    unchanged,
    delta_lib.WrongSeedError,
    'another seed',
  ),
  'applied already': (
    lambda tree: copy.deepcopy(A),
    unchanged,
    delta_lib.WrongSeedError,
    'already applied',
  ),
  'other values elsewhere': (
    with_value('encoder/kernel', UNTOUCHED, 0.125),
    unchanged,
    delta_lib.WrongSeedError,
    'differs elsewhere',
  ),
  'a parameter too many': (
    with_leaf('encoder/extra', np.ones(1)),
    unchanged,
    delta_lib.WrongSeedError,
    'does not know encoder/extra',
  ),
  'a value changed': (
    unchanged,
    with_entry('encoder/kernel', values=-ENTRY.values),
    delta_lib.ResultMismatchError,
    'the seed is the right one.*damaged',
  ),
  'a value not finite': (
    unchanged,
    with_entry('encoder/kernel', values=INFINITE),
    delta_lib.NonFiniteValueError,
    "'encoder/kernel' has 1 values.*inf, at position",
  ),
  'a position moved': (
    unchanged,
    with_entry(
      'encoder/kernel',
      positions=np.sort(np.append(ENTRY.positions[:-1], UNTOUCHED)),
    ),
    delta_lib.WrongSeedError,
    'another seed',
  ),
  'the hash of the replaced values': (
    unchanged,
    with_info(replaced_hash=HASH),
    delta_lib.WrongSeedError,
    HASH,
  ),
  'the result': (
    unchanged,
    with_info(result_fingerprint=HASH),
    delta_lib.ResultMismatchError,
    HASH,
  ),
}


@pytest.mark.parametrize('kind', ['numpy', 'jax'])
@pytest.mark.parametrize(
  ('change', 'damage', 'error', 'message'), REFUSALS.values(), ids=REFUSALS
)
def test_apply_refuses(kind, change, damage, error, message):
  params = change(as_kind(kind, SEED)) if kind == 'numpy' else None
  if params is None:
    params = jax.tree.map(
      lambda a: jnp.asarray(a) if isinstance(a, np.ndarray) else a,
      change(copy.deepcopy(SEED)),
    )
    if change is REFUSALS['a parameter too many'][0]:
      params['encoder']['extra'] = jnp.ones(1)
  before = copy.deepcopy(jax.tree.map(np.asarray, params))
  delta = damage(delta_lib.diff(SEED, A))
  with pytest.raises(error, match=message):
    delta_lib.apply(params, delta)
  assert_same(jax.tree.map(np.asarray, params), before)


def test_apply_without_verification_still_checks_what_it_touches():
  delta = delta_lib.diff(SEED, A)
  wrong = with_value('encoder/kernel', UNTOUCHED, 0.125)(SEED)
  found = delta_lib.apply(wrong, delta, verify=False)
  assert found['encoder']['kernel'].reshape(-1)[UNTOUCHED] == 0.125
  with pytest.raises(delta_lib.WrongSeedError):
    delta_lib.apply(
      with_value('encoder/kernel', ENTRY.positions[0], 9.0)(SEED),
      delta,
      verify=False,
    )


@pytest.mark.parametrize(
  ('params', 'seed', 'error', 'message'),
  [
    (SEED, SEED, delta_lib.NotAppliedError, 'differs from the delta at'),
    (B, SEED, delta_lib.NotAppliedError, 'not what is applied'),
    (A, A, delta_lib.WrongSeedError, 'already applied'),
    (A, B, delta_lib.WrongSeedError, 'another seed'),
    (
      A,
      without('gain')(SEED),
      delta_lib.UnknownParameterError,
      "no 'gain' among the seed",
    ),
    (
      with_value('encoder/kernel', UNTOUCHED, 0.125)(A),
      SEED,
      delta_lib.ResultMismatchError,
      'outside the delta',
    ),
  ],
)
def test_revert_refuses(params, seed, error, message):
  with pytest.raises(error, match=message):
    delta_lib.revert(params, delta_lib.diff(SEED, A), seed)


def test_swap_refuses_what_apply_and_revert_refuse():
  a, b = delta_lib.diff(SEED, A), delta_lib.diff(SEED, B)
  other = with_info(seed_fingerprint=HASH)(b)
  with pytest.raises(delta_lib.WrongSeedError, match='different seeds'):
    delta_lib.swap(A, a, other, SEED)
  with pytest.raises(delta_lib.NotAppliedError):
    delta_lib.swap(B, a, b, SEED)
  with pytest.raises(delta_lib.WrongSeedError, match='another seed'):
    delta_lib.swap(A, a, with_info(replaced_hash=HASH)(b), SEED)
  with pytest.raises(delta_lib.ResultMismatchError, match='the swap'):
    delta_lib.swap(A, a, with_info(result_fingerprint=HASH)(b), SEED)
