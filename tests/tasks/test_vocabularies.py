"""One vocabulary for model and task, chosen by gin; marks at the end."""

import gin
import pytest

from dst_t5x.recipes import gin_path
from dst_t5x.standalone.quiet_tensorflow import seqio
from dst_t5x.tasks import end_of_document, superglue, vocabularies

ROW = {'premise': 'A b.', 'hypothesis': 'C d.', 'label': 1, 'idx': 0}
TASK = 'super_glue_rte_v102'
# The files in gin/tasks/ and what they bind; the lengths' sources are in them.
FILES = {
  'super_glue': ('super_glue_v102_proportional', 512, 62),
  'trivia_qa': ('trivia_qa_open', 128, 32),
  'wmt22': ('wmt22_de_en', 256, 256),
  'gsm8k': ('gsm8k', 256, 384),
}


def parse(file, *bindings):
  gin.clear_config()
  gin.add_config_file_search_path(str(gin_path.root()))
  gin.parse_config_files_and_bindings(
    [f'tasks/{file}.gin'], list(bindings), finalize_config=False
  )


@pytest.mark.parametrize('file', FILES)
def test_gin_files_bind_task_and_lengths(file):
  parse(file)
  name, inputs, targets = FILES[file]
  assert gin.query_parameter('MIXTURE_OR_TASK_NAME/gin.macro.value') == name
  assert gin.query_parameter('TASK_FEATURE_LENGTHS/gin.macro.value') == {
    'inputs': inputs,
    'targets': targets,
  }
  features = seqio.get_mixture_or_task(name).output_features
  assert all(feature.add_eos for feature in features.values())


def test_t5s_vocabulary_is_the_default_and_equals_t5xs():
  parse('super_glue')
  mixture = seqio.get_mixture_or_task(superglue.MIXTURE)
  # As t5x/examples/t5/t5_1_1/base.gin names it; the file is not read.
  t5x = seqio.SentencePieceVocabulary(
    'gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model'
  )
  for feature in mixture.output_features.values():
    assert feature.vocabulary == t5x
    # What T5X asks before it trains.
    assert (feature.vocabulary != t5x) is False


@pytest.mark.parametrize('file', FILES)
def test_bytes_by_gin(file):
  parse(file, 'VOCABULARY = @vocabularies.byte()')
  name = gin.query_parameter('MIXTURE_OR_TASK_NAME/gin.macro.value')
  features = seqio.get_mixture_or_task(name).output_features
  assert features['inputs'].vocabulary == seqio.ByteVocabulary()
  assert features['targets'].vocabulary == seqio.ByteVocabulary()


def test_a_sentencepiece_file_by_gin(tmp_path, injected):
  import sentencepiece

  text = tmp_path / 'text.txt'
  text.write_text(
    'entailment not_entailment rte hypothesis premise A b. C d.\n'
  )
  sentencepiece.SentencePieceTrainer.train(
    input=str(text), model_prefix=str(tmp_path / 'own'), vocab_size=40,
    pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False,
    minloglevel=2,
  )  # fmt: skip
  path = tmp_path / 'own.model'
  parse(
    'super_glue',
    'VOCABULARY = @vocabularies.sentencepiece()',
    f'sentencepiece.path = {str(path)!r}',
  )
  with injected(TASK, {'test': [ROW]}) as task:
    [row] = task.get_dataset(
      {'inputs': 64, 'targets': 16}, split='test', shuffle=False
    ).as_numpy_iterator()
  own = sentencepiece.SentencePieceProcessor(model_file=str(path))
  assert row['targets'].tolist() == [*own.encode('not_entailment'), 1]


def test_a_missing_file_is_named(injected):
  parse(
    'super_glue',
    'VOCABULARY = @vocabularies.sentencepiece()',
    "sentencepiece.path = '/no/such.model'",
  )
  with (
    injected(TASK, {'test': [ROW]}) as task,
    pytest.raises(vocabularies.VocabularyError) as error,
  ):
    task.get_dataset(None, split='test')
  assert "'/no/such.model' cannot be read" in str(error.value)
  assert '@vocabularies.byte()' in str(error.value)


def test_something_else_is_no_vocabulary():
  gin.bind_parameter('task_vocabulary.vocabulary', 'byte')
  with pytest.raises(
    vocabularies.VocabularyError, match="VOCABULARY is 'byte'"
  ):
    vocabularies.task_vocabulary()


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('True\n[eod]', 'True'),
    ('True\n[eod]\n[eod] more', 'True'),
    ('True [eod]', 'True'),  # as T5's vocabulary gives it back
    ('True', 'True'),
    ('True\x85 ', 'True\x85 '),
    ('[eod]', ''),
  ],
)
def test_predictions_end_at_the_mark(text, expected):
  assert end_of_document.cut(text, '\n[eod]') == expected


def test_a_mark_without_white_space_leaves_it():
  assert end_of_document.cut('a [end]', '[end]') == 'a '


def test_the_mark_by_gin_is_learnt_and_not_scored(injected):
  parse(
    'super_glue',
    'VOCABULARY = @vocabularies.byte()',
    f'END_OF_DOCUMENT = {end_of_document.PAPER!r}',
  )
  with injected(TASK, {'test': [ROW]}) as task:
    [row] = task.get_dataset(
      None, split='test', shuffle=False
    ).as_numpy_iterator()
    text = row['targets_pretokenized'].decode()
    assert text == 'not_entailment\n[eod]'
    assert row['targets'].tolist() == [
      *(byte + 3 for byte in b'not_entailment\n[eod]'),
      1,
    ]
    assert task.postprocess_fn(text, example=row, is_target=True) == 1
    assert task.postprocess_fn('entailment\n[eod] x', example=row) == 0


def test_a_mark_must_be_visible():
  with pytest.raises(end_of_document.SuffixError, match='END_OF_DOCUMENT is'):
    end_of_document.suffix(' \n')
