"""The parts of the demonstration that are worth trying by themselves."""

import jax
import pytest

from dst_t5x.standalone.demonstration import (
  fresh_process,
  held_out_numbers,
  step_times,
)


def test_step_times_take_a_budget_and_silos(
  tiny_settings, tiny_seed, monkeypatch
):
  mesh = jax.sharding.Mesh(jax.devices()[:1], ('data',))
  monkeypatch.setattr(step_times, 'data_mesh', lambda: mesh)
  settings = tiny_settings._replace(epsilon=None, budget=20, silos='module')
  times = step_times.step_times(settings, tiny_seed, repeats=1)
  assert times.method > 0.0
  assert times.full > 0.0


def test_held_out_numbers_fit_the_decoded_length():
  inputs, targets = held_out_numbers.examples()
  assert len(inputs) == len(targets) == 500
  for text in (*inputs, *targets):
    assert len(text.encode()) < held_out_numbers.DECODE_LENGTH


def test_a_new_process_that_fails_says_why(tmp_path):
  with pytest.raises(fresh_process.FreshProcessError, match='no_such_seed'):
    fresh_process.predict(
      ['1'],
      seed=str(tmp_path / 'no_such_seed.safetensors'),
      delta=tmp_path / 'delta.safetensors',
      max_tokens=8,
      batch_size=1,
    )
