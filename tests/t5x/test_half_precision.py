"""Models whose parameters are bfloat16, or some of them, inside T5X.

T5X restores what lies under `target` in the dtype that a configuration names,
float32 unless the user says another, whatever was saved.
"""

import contextlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from flax.linen import partitioning as flax_partitioning
from t5x import checkpoints  # type: ignore

from dst_t5x import seeds
from dst_t5x.arrays import paths
from dst_t5x.checkpoint import exports
from dst_t5x.core import methods
from dst_t5x.delta import application as delta_application
from dst_t5x.delta.file import container
from dst_t5x.hooks import (
  inner,
  partitioning,
  restore,
  restored_dtypes,
  state_dicts,
)
from dst_t5x.hooks.optimizer import Selective
from dst_t5x.seeds import conversion
from tests import checks
from tests.t5x import runs

WIDTH = 16
HALF = np.dtype(ml_dtypes.bfloat16)
FLOAT = np.dtype(np.float32)
# The path's order is that of the silos: the first one is not bfloat16.
MIXED = {'a_norm/scale': FLOAT, 'b/kernel': HALF, 'c/kernel': HALF}
DTYPES = {
  'half': dict.fromkeys(MIXED, HALF),
  'mixed': MIXED,
  'float': dict.fromkeys(MIXED, FLOAT),
}


class Network(nn.Module):
  """A user's network, which chooses the dtype of every parameter."""

  dtypes: Any

  @nn.compact
  def __call__(self, x: Any) -> Any:
    for path, dtype in self.dtypes.items():
      module, name = path.split('/')
      weight = Parameter(name, shape_of(path), dtype, name=module)()
      x = x * weight if name == 'scale' else x @ weight
    return x


class Parameter(nn.Module):
  """One parameter with T5X's logical axes."""

  key: str
  shape: tuple[int, ...]
  dtype: Any

  @nn.compact
  def __call__(self) -> Any:
    return flax_partitioning.param_with_axes(
      self.key,
      nn.initializers.normal(1.0),
      self.shape,
      self.dtype,
      axes=('embed', 'mlp')[: len(self.shape)],
    )


class Model:
  """As much of a T5X model as the initializers ask for."""

  def __init__(self, dtypes: Any):
    self.module = Network(dtypes)

  def get_initial_variables(
    self, rng: Any, input_shapes: Any, input_types: Any = None
  ) -> Any:
    return self.module.init(rng, jnp.ones(input_shapes['x']))


class Run:
  """A run on such a model, without T5X's loop."""

  def __init__(self, dtypes: Any, folder: Any, method: Any = None):
    self.folder, self.dtypes = folder, dtypes
    self.method = methods.dst() if method is None else method
    (folder / 'run').mkdir()
    rng = np.random.default_rng(0)
    self.seed = {
      path: rng.normal(size=shape_of(path)).astype(dtype)
      for path, dtype in dtypes.items()
    }
    self.seed_path = conversion.write(
      'dst_t5x', paths.unflatten(self.seed), folder / 'seed.safetensors', step=7
    )
    self.gradients = {
      path: rng.normal(size=x.shape).astype(x.dtype)
      for path, x in self.seed.items()
    }
    self.partitioner = partitioning.Partitioner(num_partitions=1)
    self.compiled: dict[Any, Any] = {}
    self.shapes: dict[Any, Any] = {}

  def initializer(self, dtypes: Any = None) -> restore.TrainInitializer:
    made = restore.TrainInitializer(
      Selective(
        inner.Optax(optax.adam),
        self.method,
        epsilon=None if self.method.score is None else 0.05,
      ),
      Model(dtypes or self.dtypes).get_initial_variables,
      {'x': (8, WIDTH)},
      self.partitioner,
      seed_path=self.seed_path,
      model_dir=str(self.folder / 'run'),
      total_steps=100,
      restore_dataset=False,
    )
    # T5X makes its manager before the run has its parameters; see `model_info`.
    self.shapes[made] = made.global_train_state_shape
    return made

  def to_infer(self, checkpoint: Any) -> restore.InferenceInitializer:
    return restore.InferenceInitializer(
      None,
      Model(self.dtypes).get_initial_variables,
      {'x': (8, WIDTH)},
      self.partitioner,
      checkpoint_path=str(checkpoint),
    )

  def manager(self, initializer: Any, dtype: str | None) -> Any:
    """What saves and restores in T5X; `dtype` as a configuration names it."""
    return checkpoints.OrbaxCheckpointManagerInterface(
      directory=str(self.folder / 'run'),
      train_state=self.shapes.get(
        initializer, initializer.global_train_state_shape
      ),
      partitioner=self.partitioner,
      save_dtype=jnp.dtype(dtype) if dtype else None,
      restore_dtype=jnp.dtype(dtype) if dtype else None,
    )

  def trained(self, initializer: Any, state: Any, steps: int) -> Any:
    axes = initializer.train_state_axes
    if initializer not in self.compiled:
      self.compiled[initializer] = self.partitioner.partition(
        lambda s, g: s.apply_gradient(g, learning_rate=0.1),
        in_axis_resources=(axes, axes.params),
        out_axis_resources=axes,
      )
    step = self.compiled[initializer]
    gradients = state_dicts.with_leaves(state.params, self.gradients)
    for _ in range(steps):
      state = step(state, gradients)
    return state

  def saved(self, steps: int, dtype: str | None = 'float32') -> Any:
    """The parameters after some steps, which are saved, and the checkpoint."""
    initializer = self.initializer()
    state = initializer.from_scratch(jax.random.PRNGKey(0))
    state = self.trained(initializer, state, steps)
    with contextlib.closing(self.manager(initializer, dtype)) as manager:
      manager.save(state)
      manager.wait_until_finished()
    checkpoint = self.folder / 'run' / f'checkpoint_{7 + steps}'
    return flat(state.params), checkpoint

  def restored(self, initializer: Any, dtype: str | None) -> Any:
    with contextlib.closing(self.manager(initializer, dtype)) as manager:
      return manager.restore(manager.latest_step())


def shape_of(path: str) -> tuple[int, ...]:
  return (WIDTH,) if path.endswith('scale') else (WIDTH, WIDTH)


def flat(params: Any) -> dict[str, np.ndarray]:
  return checks.flat(jax.device_get(params))


def differing(a: Any, b: Any) -> dict[str, int]:
  """How many numbers of every parameter have other bits."""
  for path, x in a.items():
    assert x.dtype == b[path].dtype, path
  kinds = {path: f'u{x.dtype.itemsize}' for path, x in a.items()}
  return {
    path: int((x.view(kinds[path]) != b[path].view(kinds[path])).sum())
    for path, x in a.items()
  }


NOWHERE = dict.fromkeys(MIXED, 0)
# ε = 0.05 of 16 + 2 · 256 numbers, by largest remainder.
BUDGETS = {'a_norm/scale': 1, 'b/kernel': 13, 'c/kernel': 12}


@pytest.mark.parametrize('kind', ['half', 'mixed'])
def test_a_run_goes_on_to_the_same_bits(kind, tmp_path):
  run = Run(DTYPES[kind], tmp_path)
  tuned, checkpoint = run.saved(3)
  assert {path: x.dtype for path, x in tuned.items()} == DTYPES[kind]
  # The paper's promise: k of each silo, the rest the seed's bits.
  assert differing(run.seed, tuned) == BUDGETS
  arrays = runs.arrays(checkpoint)
  assert {arrays[f'target/{silo}'].dtype for silo in ('b', 'c')} == {HALF}

  initializer = run.initializer()
  as_saved = run.restored(initializer, None)
  assert differing(flat(as_saved.params), tuned) == NOWHERE
  whole = run.trained(initializer, as_saved, 2)
  # T5X's default, which brings bfloat16 back as float32.
  resumed = run.restored(initializer, 'float32')
  assert differing(flat(resumed.params), tuned) == NOWHERE
  after = run.trained(initializer, resumed, 2)
  assert differing(flat(after.params), flat(whole.params)) == NOWHERE
  assert differing(run.seed, flat(after.params)) == BUDGETS

  # And as a file, from what lies on the disk.
  out = str(tmp_path / 'delta.safetensors')
  exports.export_delta(str(checkpoint), out)
  delta = container.read(out)
  assert delta.size == sum(BUDGETS.values())
  again = delta_application.apply(paths.unflatten(run.seed), delta)
  assert differing(flat(again), tuned) == NOWHERE


@pytest.mark.parametrize('kind', ['mixed', 'float'])
@pytest.mark.parametrize('dtype', [None, 'float32', 'bfloat16'])
def test_infers_from_what_was_trained(once_trained, kind, dtype):
  run, tuned, checkpoint = once_trained(kind)
  params = flat(run.restored(run.to_infer(checkpoint), dtype).params)
  as_asked = {
    path: x.astype(jnp.dtype(dtype) if dtype else x.dtype)
    for path, x in tuned.items()
  }
  assert differing(params, as_asked) == NOWHERE


@pytest.fixture(scope='module')
def once_trained(tmp_path_factory):
  made: dict[str, Any] = {}

  def trained(kind: str) -> Any:
    if kind not in made:
      run = Run(DTYPES[kind], tmp_path_factory.mktemp(kind))
      made[kind] = (run, *run.saved(3))
    return made[kind]

  return trained


@pytest.mark.parametrize('kind', ['mixed', 'float'])
def test_a_resume_that_would_round_names_the_line_to_bind(once_trained, kind):
  run, _, _ = once_trained(kind)
  with pytest.raises(
    ValueError,
    match="'a_norm' was restored as bfloat16, and is float32 in this run: bind "
    "utils.SaveCheckpointConfig.dtype = 'float32'",
  ):
    run.restored(run.initializer(), 'bfloat16')


def test_full_fine_tuning_goes_on_in_its_dtype(tmp_path):
  run = Run(DTYPES['mixed'], tmp_path, methods.full())
  tuned, _ = run.saved(2)
  initializer = run.initializer()
  resumed = run.restored(initializer, 'float32')
  assert differing(flat(resumed.params), tuned) == NOWHERE
  other = run.restored(initializer, None)
  after = [
    flat(run.trained(initializer, state, 1).params)
    for state in (resumed, other)
  ]
  assert differing(*after) == NOWHERE
  with pytest.raises(ValueError, match='a_norm/scale.* restored as bfloat16'):
    run.restored(run.initializer(), 'bfloat16')


def test_a_seed_of_another_dtype_is_refused(tmp_path):
  run = Run(DTYPES['half'], tmp_path)
  with pytest.raises(
    seeds.SeedError, match='has dtype bfloat16 instead of float32'
  ) as refused:
    run.initializer(DTYPES['float'])
  assert 'dst-t5x seed convert --dtype' in str(refused.value)


def test_values_that_would_be_rounded_are_refused():
  with pytest.raises(ValueError, match='which would round it'):
    restored_dtypes.as_in_run(jnp.float32([1.001]), HALF, name='it')
