"""First and last step of a run, in T5X's count.

T5X goes on counting where the seed's pretraining ended.
"""

from dst_t5x.seeds import sharded


def of_seed(seed_path: str) -> int:
  """Returns the step at which a run begins, in T5X's count.

  Args:
    seed_path: of the seed.

  Returns:
    The seed's own step; 0 if it tells none.

  Raises:
    SeedError: if the seed cannot be read.

  Example:
    >>> of_seed('bundled')
    0
  """
  return (
    sharded.open_source(seed_path, macro='INITIAL_CHECKPOINT_PATH').step or 0
  )


def after_seed(seed_path: str, steps: int) -> int:
  """Returns the step at which a run ends, in T5X's count.

  Args:
    seed_path: of the seed.
    steps: of fine-tuning (count).

  Returns:
    The seed's own step and `steps` more.

  Raises:
    SeedError: if the seed cannot be read.
    ValueError: if `steps` is no positive number.
  """
  if not isinstance(steps, int) or steps < 1:
    raise ValueError(f'FINETUNE_STEPS={steps!r} must be a positive number')
  return of_seed(seed_path) + steps
