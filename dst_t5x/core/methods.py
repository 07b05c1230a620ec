"""The named methods. Each is a short composition of the parts.

| method          | score               | schedule    | silos            |
|-----------------|---------------------|-------------|------------------|
| dst             | distance from seed  | every step  | module and layer |
| dst_no_churn    | distance from seed  | once        | module and layer |
| random_mask     | uniform             | once        | none             |
| pafi            | −|θ⁰|               | once        | none             |
| bitfit          | path                | once        | tensor           |
| id3             | D3                  | B/T a step  | none             |
| repeat_d3       | D3                  | every step  | none             |
| full            | –                   | –           | –                |

All but `dst` and `dst_no_churn` mask the gradient before the inner optimizer,
so that its state belongs to the subset alone. In all of them every parameter
outside the subset is the seed's, bit for bit.
"""

from collections.abc import Sequence
from typing import NamedTuple

from dst_t5x.arrays import known_names
from dst_t5x.core import schedules, scores, silos, thresholds
from dst_t5x.core.schedules import Schedule
from dst_t5x.core.scores import Score
from dst_t5x.core.silos import Rule
from dst_t5x.core.thresholds import ThresholdFn

# T5 has no biases. Its nearest kin are the vectors that shift and scale whole
# activations and the relative-position biases of attention.
T5_BIASES = r'.*(_norm/scale|relpos_bias/rel_embedding)'

SiloScheme = str | Sequence[Rule | tuple[str, str]]


class Method(NamedTuple):
  """Which parameters may change, when that is decided, and by what.

  Attributes:
    name: for reports; nothing depends on it.
    score: what ranks the parameters; None if all may always change.
    schedule: when parameters enter the subset.
    silos: the scheme that is used unless the run names another.
    mask_gradients: True if the inner optimizer sees gradients of the subset
      only; False if its state comes from dense gradients and full updates.
    threshold: how the k-th largest score is found.
    pattern: if set, the budget is not a fraction: it is every parameter whose
      path this regex matches whole.
  """

  name: str
  score: Score | None
  schedule: Schedule
  silos: SiloScheme
  mask_gradients: bool
  threshold: ThresholdFn
  pattern: str | None = None


def dst(
  *,
  distance: str = 'inverse_relative',
  silo_scheme: SiloScheme = 'module_and_layer',
  threshold: ThresholdFn = thresholds.exact,
) -> Method:
  """Returns dynamic subset tuning.

  At every step the inner optimizer proposes Θ̂ = Θ + u. In every silo the k
  parameters furthest from the seed take the proposed value; all others go back
  to the seed:

    Θ_i = Θ̂_i if d(Θ⁰_i, Θ̂_i) > q_S else Θ⁰_i

  The inner optimizer's state is that of the full updates.

  Args:
    distance: 'inverse_relative', 'relative' or 'absolute'.
    silo_scheme: a scheme's name or (regex, template) pairs.
    threshold: `thresholds.exact`, `thresholds.algorithm2` or
      `thresholds.by_sorting`.

  Returns:
    The method.

  Raises:
    ValueError: if the distance or the scheme is unknown.

  Example:
    >>> dst().schedule
    Schedule(keep=False, steps=1)

  Source: Stahlberg, Lichtarge and Kumar 2024, Dynamic Subset Tuning,
  algorithm 1.
  """
  return Method(
    name='dst',
    score=_distance(distance),
    schedule=schedules.every_step(),
    silos=_checked(silo_scheme),
    mask_gradients=False,
    threshold=threshold,
  )


def dst_no_churn(
  *,
  distance: str = 'inverse_relative',
  silo_scheme: SiloScheme = 'module_and_layer',
) -> Method:
  """Returns DST whose subset is chosen in the first step and then kept.

  Args:
    distance: 'inverse_relative', 'relative' or 'absolute'.
    silo_scheme: a scheme's name or (regex, template) pairs.

  Returns:
    The method.

  Raises:
    ValueError: if the distance or the scheme is unknown.

  Example:
    >>> dst_no_churn().schedule
    Schedule(keep=True, steps=1)

  Source: DST, appendix E, table 7 ("no churn").
  """
  return dst(distance=distance, silo_scheme=silo_scheme)._replace(
    name='dst_no_churn', schedule=schedules.once()
  )


def random_mask(*, silo_scheme: SiloScheme = 'none') -> Method:
  """Returns the random baseline: a subset drawn once, uniformly.

  Args:
    silo_scheme: a scheme's name or (regex, template) pairs.

  Returns:
    The method.

  Raises:
    ValueError: if the scheme is unknown.

  Example:
    >>> random_mask().score.reads
    ('noise',)

  Source: DST, table 2 and footnote 5; Xu and Zhang 2024.
  """
  return _static('random_mask', scores.UNIFORM, silo_scheme)


def pafi(*, silo_scheme: SiloScheme = 'none') -> Method:
  """Returns PaFi: the parameters of smallest magnitude, chosen once.

  Args:
    silo_scheme: a scheme's name or (regex, template) pairs.

  Returns:
    The method.

  Raises:
    ValueError: if the scheme is unknown.

  Example:
    >>> pafi().score.reads
    ('seed',)

  Source: Liao et al. 2023, as described in ID3, section 4.3.
  """
  return _static('pafi', scores.SMALL_MAGNITUDE, silo_scheme)


def bitfit(*, pattern: str = T5_BIASES) -> Method:
  """Returns BitFit: all parameters of certain names, and no others.

  T5 has no bias vectors. The default takes what plays their part in it: the
  scales of the layer norms and the relative-position biases. The budget is the
  number of matching parameters, so neither EPSILON nor BUDGET is given.

  Args:
    pattern: regex over whole parameter paths.

  Returns:
    The method.

  Example:
    >>> bitfit().pattern
    '.*(_norm/scale|relpos_bias/rel_embedding)'

  Source: Ben-Zaken, Goldberg and Ravfogel 2022; the T5 reading is ours.
  """
  return _static('bitfit', scores.PATH, 'tensor')._replace(pattern=pattern)


def id3(
  *,
  offset: float = 1.0,
  exponent: float = 2.0,
  steps: int | None = None,
  silo_scheme: SiloScheme = 'none',
) -> Method:
  """Returns ID3: B/T parameters enter the subset at every step and stay.

  The score H = |∇| / (|θ| + offset)^exponent is taken over the parameters that
  are not yet in the subset, before the update; the inner optimizer then sees
  the gradients of the subset alone.

  Args:
    offset: the paper's ε; 1 in its table of hyper-parameters.
    exponent: the paper's exp; 2 there for understanding tasks, 0 for
      generation.
    steps: T (count); None stands for the length of the run.
    silo_scheme: a scheme's name or (regex, template) pairs.

  Returns:
    The method.

  Raises:
    ValueError: if the offset is not positive, the exponent not finite or the
      scheme unknown.

  Example:
    >>> id3(steps=100).schedule
    Schedule(keep=True, steps=100)

  Source: Agarwal et al. 2024, Step-by-Step Unmasking, algorithm 1 and
  equations 1 to 3.
  """
  return Method(
    name='id3',
    score=scores.d3_score(offset=offset, exponent=exponent),
    schedule=schedules.incremental(steps),
    silos=_checked(silo_scheme),
    mask_gradients=True,
    threshold=thresholds.exact,
  )


def repeat_d3(
  *,
  offset: float = 1.0,
  exponent: float = 2.0,
  silo_scheme: SiloScheme = 'none',
  threshold: ThresholdFn = thresholds.exact,
) -> Method:
  """Returns D3 with the whole subset chosen anew at every step.

  In ID3's Repeat baseline a parameter that leaves the subset keeps its value,
  and the number of changed parameters overshoots the budget, as the paper
  notes. Here it goes back to the seed, so that the budget holds.

  Args:
    offset: the paper's ε.
    exponent: the paper's exp.
    silo_scheme: a scheme's name or (regex, template) pairs.
    threshold: how the k-th largest score is found.

  Returns:
    The method.

  Raises:
    ValueError: if the offset is not positive, the exponent not finite or the
      scheme unknown.

  Example:
    >>> repeat_d3().schedule
    Schedule(keep=False, steps=1)

  Source: ID3, section 3, repeat-S; the reset is ours.
  """
  return id3(
    offset=offset, exponent=exponent, silo_scheme=silo_scheme
  )._replace(
    name='repeat_d3', schedule=schedules.every_step(), threshold=threshold
  )


def full() -> Method:
  """Returns full fine-tuning, the baseline: every parameter may change.

  Example:
    >>> full().score is None
    True
  """
  return Method(
    name='full',
    score=None,
    schedule=schedules.every_step(),
    silos='none',
    mask_gradients=False,
    threshold=thresholds.exact,
  )


def by_name(name: str) -> Method:
  """Returns a method with its default settings.

  Args:
    name: of a function in this module that makes one.

  Returns:
    The method.

  Raises:
    ValueError: if there is none of that name; it names the nearest.

  Example:
    >>> by_name('pafi').name
    'pafi'
  """
  made = {
    each.__name__: each
    for each in (
      dst,
      dst_no_churn,
      random_mask,
      pafi,
      bitfit,
      id3,
      repeat_d3,
      full,
    )
  }
  return known_names.look_up('method', name, made)()


def _static(name: str, score: Score, silo_scheme: SiloScheme) -> Method:
  return Method(
    name=name,
    score=score,
    schedule=schedules.once(),
    silos=_checked(silo_scheme),
    mask_gradients=True,
    threshold=thresholds.exact,
  )


def _distance(name: str) -> Score:
  return known_names.look_up('distance', name, scores.DISTANCES)


def _checked(silo_scheme: SiloScheme) -> SiloScheme:
  silos.rules(silo_scheme)
  return silo_scheme
