import json

import pytest

from dst_t5x.standalone import data, text_files
from dst_t5x.standalone.quiet_tensorflow import seqio

LENGTHS = {'inputs': 32, 'targets': 32}


def write(folder, name, content):
  path = folder / name
  path.write_bytes(
    content if isinstance(content, bytes) else content.encode('utf-8')
  )
  return path


# Other line ends of Unicode and Python's splitlines: text, all of them.
ODD = 'a\x85b\u2028c\x0bd\x0ce\x1cf\x1dg\x1eh\u2029i\rj'


@pytest.mark.parametrize(
  ('name', 'content', 'inputs', 'targets'),
  [
    ('a.tsv', 'eins\tone\nzwei\ttwo\n', ['eins', 'zwei'], ['one', 'two']),
    ('a.tsv', 'eins\tone\nzwei\ttwo', ['eins', 'zwei'], ['one', 'two']),
    ('a.tsv', 'eins\tone\r\nzwei\ttwo\r\n', ['eins', 'zwei'], ['one', 'two']),
    ('a.tsv', 'eins\tone\r\r\n', ['eins'], ['one\r']),
    ('a.tsv', b'\xef\xbb\xbfeins\tone\n', ['eins'], ['one']),
    ('a.tsv', '\tone\nzwei\t\n', ['', 'zwei'], ['one', '']),
    ('a.tsv', f'{ODD}\t{ODD}\n', [ODD], [ODD]),
    ('a.tsv', ' "eins" \t\\n\n', [' "eins" '], ['\\n']),
    ('a.tsv', 'fünf\tüß😀\n', ['fünf'], ['üß😀']),
    (
      'a.jsonl',
      '{"inputs": "a\\tb\\nc", "targets": "\\u00fc\\ud83d\\ude00"}\r\n'
      '{"targets": "", "inputs": "ü"}',
      ['a\tb\nc', 'ü'],
      ['ü😀', ''],
    ),
    (
      'a.jsonl',
      json.dumps({'inputs': ODD, 'targets': ODD}, ensure_ascii=False) + '\n',
      [ODD],
      [ODD],
    ),
  ],
)
def test_files_are_read(tmp_path, name, content, inputs, targets):
  found = text_files.read(write(tmp_path, name, content))
  assert found == {'inputs': inputs, 'targets': targets}


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('a.tsv', '', "a.tsv' is empty"),
    ('a.tsv', b'\xef\xbb\xbf', "a.tsv' is empty"),
    ('a.tsv', '\n', 'line 1: 1 column instead of 2'),
    ('a.tsv', 'eins\tone\n\n', 'line 2: 1 column instead of 2'),
    ('a.tsv', 'eins\tone\nzwei two\n', 'line 2: 1 column instead of 2'),
    ('a.tsv', 'a\tb\n' * 6 + 'a\tb\tc\n', 'line 7: 3 columns instead of 2'),
    (
      'a.tsv',
      b'eins\tone\nf\xfcnf\tfive\n',
      r'line 2: not UTF-8 at byte 2 of the line \(invalid start byte\)',
    ),
    ('a.tsv', 'eins\tone\n'.encode('utf-16'), 'line 1: not UTF-8 at byte 1'),
    ('a.jsonl', '', "a.jsonl' is empty"),
    ('a.jsonl', '\n', 'line 1: no JSON: Expecting value at character 1'),
    (
      'a.jsonl',
      '{"inputs": "a", "targets": "b"}\n{"inputs": "a", targets: "b"}\n',
      'line 2: no JSON: .* at character 17',
    ),
    ('a.jsonl', '["a", "b"]', 'line 1: a JSON list instead of an object'),
    ('a.jsonl', '{"inputs": "a"}', "line 1: the key 'targets' is missing"),
    (
      'a.jsonl',
      '{"inputs": "a", "targets": "b", "id": 1}',
      "line 1: unknown key 'id'; only",
    ),
    (
      'a.jsonl',
      '{"inputs": "a", "targets": 3}',
      "line 1: the value of 'targets' is 3; must be a string",
    ),
    (
      'a.jsonl',
      '{"inputs": null, "targets": "b"}',
      "line 1: the value of 'inputs' is None; must be a string",
    ),
    (
      'a.jsonl',
      '{"inputs": "a", "inputs": "b", "targets": "c"}',
      "line 1: a key comes twice: .'inputs', 'inputs', 'targets'.",
    ),
    (
      'a.jsonl',
      '{"inputs": "ab\\ud83d", "targets": "b"}',
      "line 1: the value of 'inputs' holds half a surrogate pair at char.* 3",
    ),
    ('a.jsonl', '[' * 200_000, 'line 1: (JSON nested too deeply|no JSON)'),
    ('a.jsonl', b'{"inputs": "\xff"}', 'line 1: not UTF-8 at byte 13'),
    ('a.csv', 'a,b\n', r"a.csv' must end in .tsv .* or .jsonl"),
  ],
)
def test_malformed_files_are_refused(tmp_path, name, content, message):
  path = write(tmp_path, name, content)
  with pytest.raises(text_files.TextFileError, match=message):
    text_files.read(path)
  with pytest.raises(text_files.TextFileError, match=name):
    text_files.register(path, path)


def test_what_is_no_file_is_refused(tmp_path):
  with pytest.raises(
    text_files.TextFileError, match=r"a.tsv' cannot be read: No such file"
  ):
    text_files.read(tmp_path / 'a.tsv')
  (tmp_path / 'b.tsv').mkdir()
  with pytest.raises(
    text_files.TextFileError, match=r"b.tsv' cannot be read: Is a directory"
  ):
    text_files.read(tmp_path / 'b.tsv')


@pytest.fixture
def pair(tmp_path):
  train = write(tmp_path, 'train.tsv', 'eins\tone\nzwölf\ttwelve\x85\n')
  return train, write(tmp_path, 'eval.tsv', 'drei\tthree\n')


def test_the_task_gives_the_texts_as_tokens(pair):
  task = seqio.TaskRegistry.get(text_files.register(*pair))
  assert sorted(task.splits) == ['train', 'validation']
  dataset = task.get_dataset(LENGTHS, split='train', shuffle=False)
  texts = [('eins', 'one'), ('zwölf', 'twelve\x85')]
  for example, (source, target) in zip(
    dataset.as_numpy_iterator(), texts, strict=True
  ):
    # Bytes are ids from 3 on; 1 is EOS.
    assert example['inputs'].tolist() == [b + 3 for b in source.encode()] + [1]
    assert example['targets'].tolist() == [b + 3 for b in target.encode()] + [1]


def test_what_is_too_long_still_ends(pair):
  task = seqio.TaskRegistry.get(text_files.register(*pair))
  lengths = {'inputs': 4, 'targets': 4}
  for example in task.get_dataset(lengths, split='train').as_numpy_iterator():
    assert len(example['inputs']) == 4
    assert example['inputs'][-1] == 1


def test_one_file_is_enough(pair):
  for files, splits in (((pair[0],), ['train']), ((None, pair[1]), None)):
    task = seqio.TaskRegistry.get(text_files.register(*files))
    assert list(task.splits) == (splits or ['validation'])
  with pytest.raises(text_files.TextFileError, match='neither train_file nor'):
    text_files.register(None)


def test_the_same_name_means_the_same_files(tmp_path, pair):
  name = text_files.register(*pair, name='my_task')
  task = seqio.TaskRegistry.get(name)
  assert text_files.register(*pair, name='my_task') == name
  assert seqio.TaskRegistry.get(name) is task
  other = write(tmp_path, 'other.tsv', 'vier\tfour\n')
  with pytest.raises(text_files.TextFileError, match="'my_task' is taken"):
    text_files.register(pair[0], other, name='my_task')
  with pytest.raises(text_files.TextFileError, match="'my_task' is taken"):
    text_files.register(
      *pair, name='my_task', vocabulary=seqio.ByteVocabulary(extra_ids=100)
    )
  with pytest.raises(text_files.TextFileError, match="'my task' cannot be"):
    text_files.register(*pair, name='my task')
  # Names of their own for other contents.
  assert text_files.register(*pair) != text_files.register(pair[0], other)


def test_training_on_files_resumes_and_notices_changed_ones(tmp_path, pair):
  def batches():
    return data.train_batches(
      'changing_task', feature_lengths=LENGTHS, batch_size=2, seed=0
    )

  text_files.register(*pair, name='changing_task')
  iterator = batches()
  next(iterator)
  iterator.save(tmp_path / 'state')
  expected = next(iterator)
  fresh = batches()
  fresh.restore(tmp_path / 'state')
  found = next(fresh)
  assert all((found[name] == expected[name]).all() for name in expected)
  # As in a later process: the same name, and a changed last line.
  seqio.TaskRegistry.remove('changing_task')
  pair[0].write_text('eins\tone\nzwölf\tTWELVE\n', encoding='utf-8')
  text_files.register(*pair, name='changing_task')
  with pytest.raises(data.DataStateError, match='contents was'):
    batches().restore(tmp_path / 'state')


def test_metrics_of_text(pair):
  task = seqio.TaskRegistry.get(text_files.register(*pair))
  scores = {}
  for metric in task.metric_fns:
    scores |= metric(['drei'], ['drei'])
  assert scores['exact_match'] == 100
  assert scores.keys() == {
    'exact_match', 'bleu', 'bleu_signature', 'chrf', 'chrf_signature',
  }  # fmt: skip


def test_without_sacrebleu_there_is_exact_match(pair, monkeypatch):
  find = text_files.metrics.importlib.util.find_spec
  monkeypatch.setattr(
    text_files.metrics.importlib.util,
    'find_spec',
    lambda name: None if name == 'sacrebleu' else find(name),
  )
  name = text_files.register(*pair, name='no_sacrebleu')
  task = seqio.TaskRegistry.get(name)
  assert [metric.__name__ for metric in task.metric_fns] == ['exact_match']
