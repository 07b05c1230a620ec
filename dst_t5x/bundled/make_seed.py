"""Makes the bundled seed: a tiny byte-level T5 that knows number words.

  python -m dst_t5x.bundled.make_seed OUT.safetensors

It is pretrained from a random initialisation on the mixture
`number_words_pretrain`: digits ↔ words within German and within English, never
from one language to the other. The same package versions on the same kind of
machine give the same file, byte for byte. The numbers below are those of the
file in the package; on two cores it takes about seven minutes.
"""

import pathlib
import time

import click
import jax
import numpy as np
import optax

from dst_t5x import seeds
from dst_t5x.core import methods, plans
from dst_t5x.network.network_config import NetworkConfig
from dst_t5x.network.transformer import init_params
from dst_t5x.standalone import data
from dst_t5x.standalone.progress import TrainProgress
from dst_t5x.standalone.train_state import data_mesh, init_state, make_step

CONFIG = NetworkConfig(
  vocab_size=384,
  emb_dim=96,
  num_heads=8,
  num_encoder_layers=2,
  num_decoder_layers=2,
  head_dim=12,
  mlp_dim=192,
)
FEATURE_LENGTHS = {'inputs': 128, 'targets': 128}
MIXTURE = 'number_words_pretrain'


@click.command()
@click.argument('out', type=click.Path(dir_okay=False, path_type=pathlib.Path))
@click.option('--steps', default=2500, show_default=True, help='Steps.')
@click.option('--batch-size', default=16, show_default=True, help='Rows.')
@click.option('--rate', default=3e-3, show_default=True, help='Peak rate.')
@click.option('--random-seed', default=0, show_default=True, help='Seed.')
def main(
  out: pathlib.Path,
  steps: int,
  batch_size: int,
  rate: float,
  random_seed: int,
) -> None:
  """Pretrains the bundled seed and writes it to OUT."""
  import dst_t5x.tasks.number_words  # noqa: F401  (registers the tasks)

  params = init_params(CONFIG, jax.random.key(random_seed))
  plan = plans.make(methods.full(), params)
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, rate, steps // 20 + 1, steps, rate / 100
  )
  optimizer = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.98)
  )
  mesh = data_mesh()
  state = init_state(plan, optimizer, params, mesh=mesh)
  step_fn = make_step(CONFIG, plan, optimizer, mesh=mesh)
  batches = data.train_batches(
    MIXTURE,
    feature_lengths=FEATURE_LENGTHS,
    batch_size=batch_size,
    seed=random_seed,
  )
  began = time.monotonic()
  with TrainProgress(total=steps) as progress:
    for step in range(1, steps + 1):
      state, metrics = step_fn(state, next(batches))
      if step % 100 == 0 or step == steps:
        progress.show(
          step,
          loss=float(metrics.loss),
          learning_rate=float(np.asarray(schedule(step))),
          subset=plan.total,
          churn=0,  # every parameter is free from the first step on
          steps_per_second=step / (time.monotonic() - began),
        )
  seeds.write(out, jax.device_get(state.params), config=CONFIG.to_dict())
  click.echo(f'{out}: {out.stat().st_size:,} bytes')


if __name__ == '__main__':
  main()
