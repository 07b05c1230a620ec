"""TFDS directories with our own rows, made by TFDS itself."""

import socket

import pytest

from dst_t5x.standalone import data
from dst_t5x.standalone.quiet_tensorflow import seqio
from dst_t5x.tasks import gsm8k, superglue, tfds_source, triviaqa  # noqa: F401
from tests.task_data import gsm8k_row, prepare

CB = [
  {'premise': f'A {i}.', 'hypothesis': f'B {i}.', 'label': i % 3, 'idx': i}
  for i in range(12)
]
GSM8K = [gsm8k_row(i) for i in range(7003)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = str(tmp_path_factory.mktemp('tfds'))
  prepare('super_glue/cb', path, {'train': CB, 'validation': CB[:3]})
  prepare('gsm8k', path, {'train': GSM8K, 'test': GSM8K[:4]})
  return path


@pytest.fixture(autouse=True)
def only_here(folder, monkeypatch):
  def connect(*arguments):
    raise AssertionError(f'no download: {arguments}')

  monkeypatch.setattr(socket.socket, 'connect', connect)
  seqio.set_tfds_data_dir_override(folder)


def test_a_prepared_data_set_is_read():
  batches = data.train_batches(
    'super_glue_cb_v102',
    feature_lengths={'inputs': 32, 'targets': 16},
    batch_size=2,
    seed=0,
    pack=False,
  )
  vocabulary = seqio.ByteVocabulary()
  first = vocabulary.decode(next(batches)['encoder_input_tokens'][0].tolist())
  rows = {f'cb hypothesis: B {i}. premise: A {i}.'[:31] for i in range(12)}
  assert first in rows


def test_slices_do_not_overlap():
  def questions(split):
    task = seqio.TaskRegistry.get('gsm8k_dev')
    rows = task.get_dataset(None, split=split, shuffle=False)
    return {row['inputs_pretokenized'] for row in rows.as_numpy_iterator()}

  train, validation = questions('train'), questions('validation')
  assert (len(train), len(validation)) == (7000, 3)
  assert not train & validation
  assert len(questions('test')) == 4


def test_gsm8k_trains_on_all_rows():
  source = seqio.TaskRegistry.get('gsm8k').source
  assert source.num_input_examples('train') == 7003


def test_a_missing_data_set_is_named(folder):
  task = seqio.TaskRegistry.get('super_glue_rte_v102')
  with pytest.raises(tfds_source.MissingDatasetError) as error:
    task.get_dataset(None, split='train')
  text = str(error.value)
  assert "'super_glue/rte:1.0.2'" in text
  assert folder in text
  assert 'TFDS_DATA_DIR' in text


def test_a_missing_directory_is_named(tmp_path):
  seqio.set_tfds_data_dir_override(str(tmp_path / 'nowhere'))
  source = tfds_source.TfdsSource('super_glue/cb:1.0.2', ['train'])
  with pytest.raises(tfds_source.MissingDatasetError, match='nowhere'):
    source.get_dataset('train')
  with pytest.raises(tfds_source.MissingDatasetError, match='nowhere'):
    source.num_input_examples('train')


def test_a_missing_split_is_named():
  task = seqio.TaskRegistry.get('super_glue_cb_v102')
  with pytest.raises(tfds_source.MissingDatasetError) as error:
    task.get_dataset(None, split='test')
  assert "no split 'test'; it has: train, validation" in str(error.value)


def test_a_split_that_a_task_lacks_is_named():
  # T5X infers on every task of a mixture, and asks for the files first.
  source = seqio.TaskRegistry.get('super_glue_cb_v102').source
  with pytest.raises(
    tfds_source.MissingDatasetError, match="'dev'.*: train, validation, test"
  ):
    source.list_shards('dev')


def test_an_unknown_split_is_named():
  with pytest.raises(
    data.DataError, match="no split 'dev'; it has: test, train"
  ):
    data.train_batches(
      'trivia_qa_open',
      feature_lengths={'inputs': 8, 'targets': 8},
      batch_size=1,
      seed=0,
      split='dev',
    )
