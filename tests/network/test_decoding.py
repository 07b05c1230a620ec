"""Decoding against teacher forcing, exhaustive search and a plain beam search.

All of these read one table: the log probabilities of the next token after
every prefix, which the network gives for whole sequences, without a cache.
"""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dst_t5x.arrays import paths
from dst_t5x.network import decoding, transformer
from dst_t5x.network.beam_search import beam_search, length_penalty
from dst_t5x.network.decoding import decode
from dst_t5x.network.network_config import NetworkConfig

SIZE, LENGTH, EOS = 5, 4, 1
CONFIG = NetworkConfig(
  vocab_size=SIZE,
  emb_dim=6,
  num_heads=2,
  num_encoder_layers=1,
  num_decoder_layers=1,
  head_dim=3,
  mlp_dim=8,
)
SOURCES: Any = np.array(
  [[2, 3, 1, 0], [3, 1, 0, 0], [4, 4, 2, 1], [2, 1, 0, 0], [3, 4, 1, 0]]
  + [[4, 2, 3, 1], [0, 0, 0, 0]],
  np.int32,
)
ROWS = len(SOURCES) - 1  # the last is padding
ATOL = 1e-4

SEQUENCES: Any = np.array(
  list(itertools.product(range(SIZE), repeat=LENGTH)), np.int32
)


def random_params(config, seed):
  rng = np.random.default_rng(seed)
  return paths.unflatten(
    {
      path: rng.normal(0.0, 1.0, leaf.shape).astype(np.float32)
      for path, leaf in transformer.param_shapes(config).items()
    }
  )


# One of the few draws that `test_the_cases_tell_searches_apart` accepts.
PARAMS = random_params(CONFIG, 22)


@pytest.fixture(scope='module')
def next_scores():
  """Per row: log probabilities of the next token by prefix, a tuple."""
  score = jax.jit(
    lambda batch: jax.nn.log_softmax(transformer.logits(CONFIG, PARAMS, batch))
  )
  tables = []
  for source in SOURCES[:ROWS]:
    scores = np.asarray(
      score(
        {
          'encoder_input_tokens': np.tile(source, (len(SEQUENCES), 1)),
          'decoder_input_tokens': np.pad(SEQUENCES, ((0, 0), (1, 0)))[:, :-1],
          # Only says what is padding: 0 is a token like others here.
          'decoder_target_tokens': np.ones_like(SEQUENCES),
        }
      ),
      np.float64,
    )
    tables.append(
      {
        tuple(sequence[:i].tolist()): scores[n, i]
        for n, sequence in enumerate(SEQUENCES)
        for i in range(LENGTH)
      }
    )
  return tables


def penalty(alpha, length):
  return ((5 + length) / 6) ** alpha


def finish(sequence):
  """A sequence as it is returned."""
  return [*sequence, *[0] * (LENGTH - len(sequence))]


def exhaustive(table, alpha, eos) -> Any:
  """The best of all sequences that end, or of all if none does."""
  best, best_score = None, -math.inf
  for n in range(1, LENGTH + 1):
    for sequence in itertools.product(range(SIZE), repeat=n):
      early = eos in sequence[:-1]
      if early or (sequence[-1] != eos and (eos < SIZE or n < LENGTH)):
        continue
      score = sum(table[sequence[:i]][sequence[i]] for i in range(n))
      score /= penalty(alpha, n) if eos < SIZE else 1.0
      if score > best_score:
        best, best_score = sequence, score
  return best, best_score


def plain_beam_search(table, size, alpha):
  """Beam search with lists, of Wu et al. 2016 with T5X's places and stopping.

  From 2K continuations of K beams, those that end compete for K places, and the
  best K of the others live. Stops when no living beam could still take a place.
  """
  live, finished = [((), 0.0)], []
  for i in range(LENGTH):
    continued = sorted(
      (
        ((*sequence, token), score + table[sequence][token])
        for sequence, score in live
        for token in range(SIZE)
      ),
      key=lambda item: -item[1],
    )[: 2 * size]
    live = [item for item in continued if item[0][-1] != EOS][:size]
    finished += [
      (sequence, score / penalty(alpha, i + 1))
      for sequence, score in continued
      if sequence[-1] == EOS
    ]
    finished = sorted(finished, key=lambda item: -item[1])[:size]
    hope = live[0][1] / penalty(alpha, LENGTH + 1)
    if len(finished) == size and finished[-1][1] > hope:
      break
  return (finished or live)[0]


def greedy_search(table):
  sequence, score = (), 0.0
  while len(sequence) < LENGTH and EOS not in sequence:
    score += table[sequence].max()
    sequence = (*sequence, int(table[sequence].argmax()))
  return sequence, score


def test_greedy_equals_teacher_forcing(next_scores):
  found = decode(CONFIG, PARAMS, SOURCES, max_decode_len=LENGTH)
  for row, table in enumerate(next_scores):
    sequence, score = greedy_search(table)
    assert found.tokens[row].tolist() == finish(sequence)
    np.testing.assert_allclose(found.scores[row], score, atol=ATOL)


def test_one_beam_is_greedy(monkeypatch):
  # By contract: T5X's own beam search with one beam goes on after the end
  # token was best, and may find something else.
  def refuse(*args, **kwargs):
    raise AssertionError('beam search was called')

  monkeypatch.setattr(decoding, 'beam_search', refuse)
  decode(CONFIG, PARAMS, SOURCES, max_decode_len=LENGTH + 1, beam_size=1)


@pytest.mark.parametrize('alpha', [0.0, 0.6, 2.0])
def test_wide_beam_equals_exhaustive_search(next_scores, alpha):
  found = decode(
    CONFIG,
    PARAMS,
    SOURCES,
    max_decode_len=LENGTH,
    beam_size=SIZE ** (LENGTH - 1),
    alpha=alpha,
  )
  for row, table in enumerate(next_scores):
    sequence, score = exhaustive(table, alpha, EOS)
    assert found.tokens[row].tolist() == finish(sequence)
    np.testing.assert_allclose(found.scores[row], score, atol=ATOL)


def test_without_an_end_the_best_live_beam_is_returned(next_scores):
  found = decode(
    CONFIG,
    PARAMS,
    SOURCES,
    max_decode_len=LENGTH,
    beam_size=SIZE ** (LENGTH - 1),
    eos_id=99,
  )
  for row, table in enumerate(next_scores):
    sequence, score = exhaustive(table, 0.6, 99)
    assert found.tokens[row].tolist() == list(sequence)
    np.testing.assert_allclose(found.scores[row], score, atol=ATOL)


@pytest.mark.parametrize(
  ('beams', 'alpha'), [(2, 0.0), (2, 0.6), (2, 2.0), (3, 0.6)]
)
def test_narrow_beam_equals_a_plain_one(next_scores, beams, alpha):
  found = decode(
    CONFIG,
    PARAMS,
    SOURCES,
    max_decode_len=LENGTH,
    beam_size=beams,
    alpha=alpha,
  )
  for row, table in enumerate(next_scores):
    sequence, score = plain_beam_search(table, beams, alpha)
    assert found.tokens[row].tolist() == finish(sequence)
    np.testing.assert_allclose(found.scores[row], score, atol=ATOL)


@pytest.mark.parametrize('beams', [2, 3])
@pytest.mark.parametrize('alpha', [0.0, 0.6, 2.0])
def test_beams_keep_their_own_histories(beams, alpha):
  # Every prefix has scores of its own, found by what the cache remembers of
  # it, in many rows: a beam with another's cache, or a search that stops a step
  # too early, finds something else.
  rows = 100
  counts = [SIZE**i for i in range(LENGTH)]
  starts = np.concatenate([[0], np.cumsum(counts)])
  rng = np.random.default_rng(0)
  logits = rng.normal(0.0, 1.5, (rows, starts[-1], SIZE)).astype(np.float32)
  scores = np.asarray(jax.nn.log_softmax(logits))

  def step(tokens, position, caches, crosses, sources):
    (codes,) = caches
    codes = codes * SIZE + tokens  # the start token counts as 0
    place = jnp.asarray(starts)[position] + codes
    return jnp.asarray(logits)[sources[:, 0] - 1, place], [codes]

  # Mapped, not as one batch: a batch stops when its last row is over, which
  # would hide that another row stops too early.
  @jax.jit
  @jax.vmap
  def search(source):
    return beam_search(
      step,
      source[None, None],
      [jnp.zeros(1, jnp.int32)],
      [],
      max_decode_len=LENGTH,
      beam_size=beams,
      alpha=alpha,
      eos_id=EOS,
    )

  found, found_scores = search(jnp.arange(1, rows + 1))
  for row in range(rows):
    table = {
      prefix: scores[row, starts[i] + n]
      for i in range(LENGTH)
      for n, prefix in enumerate(itertools.product(range(SIZE), repeat=i))
    }
    sequence, score = plain_beam_search(table, beams, alpha)
    assert found[row, 0].tolist() == finish(sequence)
    np.testing.assert_allclose(found_scores[row, 0], score, atol=ATOL)


def test_the_cases_tell_searches_apart(next_scores):
  # Guards the tests above: on these rows greedy decoding, narrow and wide
  # beams, and the penalty's exponents give different sequences.
  def sequences(search, *args):
    return [search(table, *args)[0] for table in next_scores]

  narrow = sequences(plain_beam_search, 2, 0.6)
  greedy = [greedy_search(table)[0] for table in next_scores]
  wide = sequences(exhaustive, 0.6, EOS)
  assert len({len(sequence) for sequence in greedy}) > 1
  assert len(set(greedy)) > 3
  assert greedy != narrow != wide
  assert narrow != sequences(plain_beam_search, 3, 0.6)
  assert narrow != sequences(plain_beam_search, 2, 2.0)
  assert sequences(exhaustive, 0.0, EOS) != sequences(exhaustive, 2.0, EOS)
  # In one row no beam ends in time.
  assert any(EOS not in sequence for sequence in narrow)


@pytest.mark.parametrize('beams', [1, 3])
def test_padding_rows_are_zeros(beams):
  found = decode(
    CONFIG, PARAMS, SOURCES, max_decode_len=LENGTH, beam_size=beams
  )
  assert found.tokens.dtype == jnp.int32
  assert found.tokens.shape == (ROWS + 1, LENGTH)
  assert found.tokens[ROWS].tolist() == [0] * LENGTH
  assert found.scores[ROWS] == 0.0
  assert np.all(found.scores[:ROWS] < 0.0)


@pytest.mark.parametrize('beams', [1, 3])
def test_rows_do_not_depend_on_each_other(beams):
  together = decode(
    CONFIG, PARAMS, SOURCES, max_decode_len=LENGTH, beam_size=beams
  )
  order = np.array([5, 3, 6, 0, 1, 4, 2])
  apart = decode(
    CONFIG, PARAMS, SOURCES[order], max_decode_len=LENGTH, beam_size=beams
  )
  np.testing.assert_array_equal(together.tokens[order], apart.tokens)
  np.testing.assert_allclose(together.scores[order], apart.scores, atol=ATOL)


def test_greedy_stops_when_all_rows_have_ended(monkeypatch):
  steps = []

  class Counting(transformer.Transformer):
    def step(self, tokens, position, caches, crosses, sources):
      jax.debug.callback(lambda i: steps.append(int(i)), position)
      return super().step(tokens, position, caches, crosses, sources)

  monkeypatch.setattr(decoding, 'Transformer', Counting)
  # A length of its own, so that nothing compiled before is used.
  length = 3 * LENGTH + 1
  sources = SOURCES[[0, 3, ROWS]]
  found = decode(CONFIG, PARAMS, sources, max_decode_len=length)
  jax.effects_barrier()
  ends = np.asarray(found.tokens) == EOS
  assert ends.any(axis=1).tolist() == [True, True, False]
  assert len(steps) == ends.argmax(axis=1).max() + 1 < length


def test_beam_search_stops_when_nothing_can_improve():
  steps = []
  # The end token is certain after any prefix; a penalty cannot make up for it.
  logits = jnp.full((4, SIZE), -50.0).at[:, EOS].set(0.0)

  def step(tokens, position, caches, crosses, sources):
    jax.debug.callback(lambda i: steps.append(int(i)), position)
    return logits, caches

  tokens, scores = jax.jit(
    lambda: beam_search(
      step,
      jnp.ones((2, 3), jnp.int32),
      [],
      [],
      max_decode_len=9,
      beam_size=2,
      alpha=0.6,
      eos_id=EOS,
    )
  )()
  jax.effects_barrier()
  assert tokens.tolist() == [[EOS] + [0] * 8] * 2
  np.testing.assert_allclose(scores, [0.0, 0.0], atol=ATOL)
  # The second place is filled at the second step.
  assert sorted(set(steps)) == [0, 1]


@pytest.mark.parametrize('alpha', [0.0, 0.6, 1.0])
def test_length_penalty(alpha):
  for length in (1, 2, 7, 100):
    np.testing.assert_allclose(
      length_penalty(alpha, length), ((5 + length) / 6) ** alpha, rtol=1e-6
    )


@pytest.mark.parametrize('name', ['max_decode_len', 'beam_size'])
def test_refuses_counts_below_one(name):
  counts = {'max_decode_len': 3, 'beam_size': 2, name: 0}
  with pytest.raises(ValueError, match=f'{name}=0 must be >= 1'):
    decode(CONFIG, PARAMS, SOURCES, **counts)
