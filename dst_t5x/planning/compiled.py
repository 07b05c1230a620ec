"""T5X's train step of a recipe, compiled for a TPU slice and measured.

  python -m dst_t5x.planning.compiled SLICE OUT.json T5X FLAGS…

T5X's run files bind `train` of the main module, which is this one: gin builds
the model, the partitioner and the trainer exactly as for a real run, and hands
them over. Nothing of the data and the seed is read. Lines on standard output
say what is going on, for `compile_process`.
"""

import json
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gin
import jax
import seqio
import tensorflow as tf
from t5x import gin_utils, utils  # type: ignore

from dst_t5x.core.counting import Partitioning
from dst_t5x.hooks import axes as axes_lib
from dst_t5x.hooks import partitioning
from dst_t5x.hooks.optimizer import Selective
from dst_t5x.planning import hlo, slices, virtual_slice
from dst_t5x.recipes import gin_path, recipe

# What a run reads and a plan does not.
_UNUSED = (
  "INITIAL_CHECKPOINT_PATH = 'none'",
  "MODEL_DIR = 'none'",
  'TRAIN_STEPS = 1000000000',
  'SAVE_DATASET = False',
)


class Run(NamedTuple):
  """What gin hands over.

  Attributes:
    model: T5X's.
    config: of the training data.
    partitioner: on the slice.
    trainer_cls: makes the trainer.
  """

  model: Any
  config: Any
  partitioner: Any
  trainer_cls: Any


def train(
  *,
  model: Any,
  train_dataset_cfg: Any,
  partitioner: Any,
  trainer_cls: Any,
  **rest: Any,
) -> Run:
  """Stands where T5X's `train` does, and gives back what gin built."""
  del rest
  return Run(model, train_dataset_cfg, partitioner, trainer_cls)


def batch(model: Any, config: Any) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns shapes and dtypes of a batch, as the model's converter makes it."""
  converter = model.FEATURE_CONVERTER_CLS(
    pack=config.pack, use_custom_packing_ops=config.use_custom_packing_ops
  )
  row = {name: tf.constant([1]) for name in config.task_feature_lengths}
  spec: Any = converter(
    tf.data.Dataset.from_tensors(row), config.task_feature_lengths
  ).element_spec
  return {
    name: jax.ShapeDtypeStruct(
      (config.batch_size, *leaf.shape), leaf.dtype.as_numpy_dtype
    )
    for name, leaf in spec.items()
  }


def lowered(run: Run, optimizer_def: Any, **options: Any) -> Any:
  """Returns the train step with an optimizer, ready to be compiled."""
  shapes = batch(run.model, run.config)
  initializer = utils.TrainStateInitializer(
    optimizer_def,
    run.model.get_initial_variables,
    {name: leaf.shape for name, leaf in shapes.items()},
    run.partitioner,
    {name: leaf.dtype for name, leaf in shapes.items()},
  )
  axes = initializer.train_state_axes
  if isinstance(optimizer_def, Selective):
    specs = axes_lib.specs(axes.params)
    optimizer_def.set_partitioning(Partitioning(run.partitioner.mesh, specs))
    axes = partitioning.with_seed_in(
      getattr(run.partitioner, 'seed_memory_kind', None),
      axes,
      run.partitioner.mesh,
    )
  trainer = run.trainer_cls(
    model=run.model,
    train_state=initializer.global_train_state_shape,
    partitioner=run.partitioner,
    eval_names=[],
    summary_dir=None,
    train_state_axes=axes,
    rng=jax.random.PRNGKey(0),
    **options,
  )
  return trainer._partitioned_train_step.lower(
    initializer.global_train_state_shape, shapes
  )


def measured(step: Any, device_bytes: int) -> dict[str, Any]:
  """Compiles a step and returns what it takes of a device."""
  begin = time.monotonic()
  try:
    done = step.compile()
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    return {
      'fits': False,
      'why': str(error).split('\n')[0],
      'seconds': time.monotonic() - begin,
    }
  memory, cost = done.memory_analysis(), done.cost_analysis()
  bytes_ = {
    'arguments': memory.argument_size_in_bytes,
    'outputs': memory.output_size_in_bytes,
    'donated': memory.alias_size_in_bytes,
    'temporaries': memory.temp_size_in_bytes,
    'code': memory.generated_code_size_in_bytes,
    'host': memory.host_argument_size_in_bytes,
  }
  peak = (
    bytes_['arguments']
    + bytes_['outputs']
    - bytes_['donated']
    + bytes_['temporaries']
    + bytes_['code']
  )
  return {
    'fits': peak <= device_bytes,
    'bytes_per_device': {**bytes_, 'peak': peak},
    'operations': cost['flops'],
    'bytes_accessed': cost['bytes accessed'],
    'collectives': [each._asdict() for each in hlo.collectives(done.as_text())],
    'seconds': time.monotonic() - begin,
  }


def read(arguments: Sequence[str]) -> Run:
  """Lets gin build a run from T5X's flags, with bytes for a vocabulary."""
  found = recipe.complete(recipe.flags(arguments))
  handed_over: Any = gin.configurable(train)
  gin_utils.parse_gin_flags(
    [*found.search_paths, *map(str, gin_path.search_paths())],
    list(found.files),
    [*found.bindings, *_UNUSED],
    finalize_config=False,
  )
  size = gin.query_parameter('VOCAB_SIZE/gin.macro.value')
  vocabulary = seqio.PassThroughVocabulary(size, eos_id=1)
  for side in ('input', 'output'):
    gin.bind_parameter(
      f'models.EncoderDecoderModel.{side}_vocabulary', vocabulary
    )
  return handed_over()


def main(arguments: Sequence[str]) -> None:
  """Compiles with and without the method, and writes a JSON file."""
  name, out, *flags = arguments
  slice_ = slices.parse(name)
  with virtual_slice.as_if_on(virtual_slice.devices(slice_)):
    run = read(flags)
    optimizer_def = run.model.optimizer_def
    optimizer_def.set_total_steps(10**6)
    mesh: Mapping[str, int] = run.partitioner.mesh.shape
    report: dict[str, Any] = {'mesh': dict(mesh)}
    variants: list[tuple[str, Any, dict[str, Any]]] = [
      ('tuned', optimizer_def, {})
    ]
    if os.environ.get('DST_T5X_PLAN_FULL', '1') == '1':
      stock = {'weight_metrics_computer': None}
      variants.append(('full', optimizer_def.inner, stock))
    for label, definition, options in variants:
      print(f'{label}: tracing', flush=True)
      step = lowered(run, definition, **options)
      print(f'{label}: compiling', flush=True)
      report[label] = measured(step, slice_.device_bytes)
      del step
  pathlib.Path(out).write_text(json.dumps(report))


if __name__ == '__main__':
  main(sys.argv[1:])
