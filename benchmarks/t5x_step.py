"""What DST adds to T5X's own train step.

  python benchmarks/t5x_step.py --json t5x_step.json

Target: at most 1.05 times stock T5X with Adafactor on the shapes of T5 1.1
small at ε = 1e-4. `exact` is the method alone, `reported` with the metrics
that runs/finetune_t5x.gin binds, computed at every step; sorting is beside
them, since that is what a quantile does.

It is the train step that `t5x.train` compiles, from a random start, on a
copying task. The variants take turns in one run, as in `step.py`, and what DST
adds does not depend on the batch, so that its share falls with the batch's
tokens. Needs T5X. Small takes about six minutes on two cores, most of them to
compile.
"""

import json
import pathlib
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.progress
import seqio
import step as own_step
from jax.sharding import PartitionSpec
from t5x import adafactor, models, trainer, utils  # type: ignore
from t5x.examples.t5 import network  # type: ignore

from dst_t5x.arrays.paths import named_leaves
from dst_t5x.core import methods, thresholds
from dst_t5x.core.counting import Partitioning
from dst_t5x.hooks import axes as axes_lib
from dst_t5x.hooks import partitioning, subset_metrics
from dst_t5x.hooks.optimizer import Selective

VARIANTS = ('full', 'exact', 'reported', 'by_sorting')
NAMES = (
  'encoder_input_tokens',
  'decoder_target_tokens',
  'decoder_input_tokens',
  'decoder_loss_weights',
)


def optimizer(variant: str, epsilon: float) -> Any:
  """Returns T5X's optimizer, alone or with the method around it."""
  stock = adafactor.Adafactor(
    decay_rate=0.8,
    step_offset=0,
    logical_factor_rules=adafactor.standard_logical_factor_rules(),
  )
  if variant == 'full':
    return stock
  method = methods.dst()
  if variant == 'by_sorting':
    method = methods.dst(threshold=thresholds.by_sorting)
  return Selective(stock, method, epsilon=epsilon)


def variant_of(
  name: str, size: str, epsilon: float, rate: float, batch: int, length: int
) -> own_step.Advance:
  """Returns a function that takes the n-th train step."""
  config = own_step.SIZES[size]
  fields = config.to_dict()
  fields['mlp_activations'] = tuple(fields['mlp_activations'])
  vocabulary = seqio.PassThroughVocabulary(config.vocab_size, eos_id=1)
  definition = optimizer(name, epsilon)
  model = models.EncoderDecoderModel(
    module=network.Transformer(network.T5Config(**fields)),
    input_vocabulary=vocabulary,
    output_vocabulary=vocabulary,
    optimizer_def=definition,
    z_loss=1e-4,
    loss_normalizing_factor='NUM_REAL_TARGET_TOKENS',
  )
  partitioner = partitioning.Partitioner(num_partitions=1)
  initializer = utils.TrainStateInitializer(
    definition,
    model.get_initial_variables,
    dict.fromkeys(NAMES, (batch, length)),
    partitioner,
    dict.fromkeys(NAMES, jnp.int32),
  )
  axes = initializer.train_state_axes
  if name != 'full':
    specs = axes_lib.named(axes.params)
    definition.set_partitioning(Partitioning(partitioner.mesh, specs))
  state = initializer.from_scratch(jax.random.PRNGKey(0))
  if name != 'full':
    # The seed is the start, in memory of its own, as after a restore.
    states = dict(state.param_states)
    params = named_leaves(state.params)
    seed = {path: jnp.copy(x) for path, x in params.items()}
    states['selective'] = states['selective']._replace(seed=seed)
    kept = state._optimizer
    kept = kept.replace(state=kept.state.replace(param_states=states))
    state = state.replace(_optimizer=kept)
  reporter = subset_metrics.SubsetMetrics() if name == 'reported' else None

  def train_step(state: Any, batch: Any) -> Any:
    return trainer.train_with_lr(
      state,
      batch,
      jnp.float32(rate),
      jax.random.PRNGKey(0),
      model,
      None,
      reporter,
    )

  run = partitioner.partition(
    train_step,
    in_axis_resources=(axes, PartitionSpec('data')),
    out_axis_resources=(axes, None),
    donate_argnums=(0,),
  )
  rng = np.random.default_rng(0)
  tokens = rng.integers(3, config.vocab_size, (4, batch, length)).astype('i4')
  batches = [
    dict(
      zip(
        NAMES,
        (t, t, np.pad(t[:, :-1], ((0, 0), (1, 0))), np.ones_like(t)),
        strict=True,
      )
    )
    for t in tokens
  ]

  def advance(n: int) -> Any:
    nonlocal state
    state, _ = run(state, batches[n % 4])
    jax.block_until_ready(state)
    if name == 'full':
      return _NoPasses
    return state.param_states['selective'].metrics

  return advance


class _NoPasses:
  passes = 0


@click.command()
@click.option(
  '--size', type=click.Choice(list(own_step.SIZES)), default='small'
)
@click.option('--epsilon', default=1e-4, show_default=True)
@click.option('--rate', default=1e-2, show_default=True, help="Adafactor's.")
@click.option('--turns', default=16, show_default=True, help='Steps timed.')
@click.option('--batch', default=8, show_default=True, help='Examples a step.')
@click.option('--length', default=128, show_default=True, help='Tokens a side.')
@click.option(
  '--variant',
  'names',
  type=click.Choice(VARIANTS),
  multiple=True,
  default=VARIANTS,
  help='To be measured; full always is.',
)
@click.option('--json', 'path', type=click.Path(), help='Write JSON here.')
def main(
  size: str,
  epsilon: float,
  rate: float,
  turns: int,
  batch: int,
  length: int,
  names: tuple[str, ...],
  path: str | None,
) -> None:
  """Times T5X's train step with DST against the same step without."""
  chosen = ['full', *(name for name in names if name != 'full')]
  console = rich.console.Console()
  variants = {
    name: variant_of(name, size, epsilon, rate, batch, length)
    for name in chosen
  }
  with rich.progress.Progress(console=console, transient=True) as progress:
    results = own_step.measure(variants, turns, progress)
  console.print(own_step.make_table('step', results))
  if path is not None:
    report = {
      'size': size,
      'epsilon': epsilon,
      'turns': turns,
      'batch': batch,
      'length': length,
      'devices': [str(d) for d in jax.devices()],
      'step': results,
    }
    pathlib.Path(path).write_text(json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
  main()
