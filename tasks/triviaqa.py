"""TriviaQA without documents: the model must know the answer.

The splits are those that seqio's documentation uses: of the TFDS data set
`trivia_qa/unfiltered.nocontext`, the last tenth of the training rows is for
development, and the validation rows are the test set, because the gold answers
of its own test set are hidden. The target is the answer in its main form; a
prediction is right if it equals any alias (`answers`).

Source: Roberts et al., How Much Knowledge Can You Pack Into the Parameters of
a Language Model? (2020); DST, appendix G.
"""

import functools

from . import answers, postprocessors, preprocessors, registration
from .tfds_source import TfdsSource

registration.add(
  'trivia_qa_open',
  source=TfdsSource(
    'trivia_qa/unfiltered.nocontext:1.1.0',
    {
      'train': 'train[:90%]',
      'validation': 'train[90%:]',
      'test': 'validation',
    },
  ),
  preprocessors=[preprocessors.closed_book_question],
  postprocess_fn=functools.partial(postprocessors.right_answers, key='answers'),
  metric_fns=[answers.trivia_qa],
)
