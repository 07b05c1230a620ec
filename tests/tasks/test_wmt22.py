"""WMT test sets from caches and archives made here, with our own sentences."""

import hashlib
import io
import tarfile

import gin
import pytest
from sacrebleu import dataset as sacrebleu_sets

from dst_t5x.standalone.quiet_tensorflow import seqio
from dst_t5x.tasks import wmt22, wmt_data
from tests.task_data import put, sentences, write_wmt


@pytest.fixture
def no_download(monkeypatch):
  def urlopen(url, *arguments):
    raise OSError('no network')

  monkeypatch.setattr('urllib.request.urlopen', urlopen)


@pytest.fixture
def cache(tmp_path, monkeypatch, no_download):
  """All sets, made up, in sacreBLEU's layout."""
  write_wmt(tmp_path)
  monkeypatch.setenv('SACREBLEU', str(tmp_path))
  return tmp_path


def test_training_is_the_papers_31_5k(cache):
  sources, references = wmt22.rows('train')
  # DST, table 8: 31.5K. One reference each.
  assert len(sources) == len(references) == 31_480
  assert {len(texts) for texts in references} == {1}
  assert len(set(sources)) == len(sources)
  for source, (reference,) in zip(sources, references, strict=True):
    assert reference == source.replace('src', 'ref')
  years = {source.split()[0] for source in sources}
  assert 'wmt08' not in years
  assert {'newssyscomb2009', 'wmt09', 'wmt14/full', 'wmt20'} <= years
  assert not {'wmt21', 'wmt22'} & years
  # Shuffled: seqio looks ahead by a thousand rows only.
  assert len({source.split()[0] for source in sources[:200]}) > 8


def test_development_is_one_sample_for_ever(cache):
  sources, references = wmt22.rows('validation')
  assert len(sources) == 500
  numbers = [int(source.split()[2]) for source in sources]
  assert numbers == sorted(set(numbers))
  digest = hashlib.sha256(repr(numbers).encode()).hexdigest()
  # A changed sample would make scores incomparable.
  assert digest[:16] == '7814e9158c4fafb6'
  assert references[0] == tuple(
    sources[0].replace('src', field) for field in ('ref-A', 'ref-B')
  )


def test_texts(cache, texts):
  task = seqio.TaskRegistry.get('wmt22_de_en')
  found = texts(task, 'test')
  assert len(found) == 1984
  assert found[3] == (
    'translate German to English: wmt22 src 3\x85',
    'wmt22 ref-A 3\x85',
  )


def test_all_references_are_scored_and_empty_ones_are_not(cache):
  lines = sentences('wmt22', 'ref-B')
  put(cache, 'wmt22', 'ref-B', ['', *lines[1:]])
  task = seqio.TaskRegistry.get('wmt22_de_en')
  rows = task.get_dataset(None, split='test', shuffle=False)
  first, second = rows.take(2).as_numpy_iterator()
  targets = [
    task.postprocess_fn('', example=row, is_target=True)
    for row in (first, second)
  ]
  assert targets == [
    ['wmt22 ref-A 0\x85'],
    ['wmt22 ref-A 1\x85', 'wmt22 ref-B 1\x85'],
  ]
  assert task.postprocess_fn('Text', example=first, is_target=False) == 'Text'


def test_the_cache_is_configurable(tmp_path, monkeypatch):
  monkeypatch.setenv('SACREBLEU', str(tmp_path / 'a'))
  assert wmt_data.cache_dir() == tmp_path / 'a'
  gin.bind_parameter('wmt_data.cache_dir.path', str(tmp_path / 'b'))
  assert wmt_data.cache_dir() == tmp_path / 'b'


def test_what_is_missing_is_named(tmp_path, no_download):
  with pytest.raises(wmt_data.WmtDataError) as error:
    wmt_data.read('wmt19', cache=tmp_path)
  text = str(error.value)
  for part in (
    'the test set wmt19 is not in',
    'no network',
    sacrebleu_sets.DATASETS['wmt19'].data[0],
    sacrebleu_sets.DATASETS['wmt19'].md5[0],
    str(tmp_path / 'wmt19' / 'raw' / 'wmt19.test.tgz'),
    'SACREBLEU',
  ):
    assert part in text


def test_a_file_of_another_length_is_named(cache):
  put(cache, 'wmt20', 'src', sentences('wmt20', 'src')[1:])
  with pytest.raises(wmt_data.WmtDataError, match='784 lines; wmt20 has 785'):
    wmt_data.read('wmt20')


def test_an_unknown_set_is_named(tmp_path):
  with pytest.raises(wmt_data.WmtDataError, match="no test set 'wmt07'"):
    wmt_data.read('wmt07', cache=tmp_path)


def archive(files):
  memory = io.BytesIO()
  with tarfile.open(fileobj=memory, mode='w:gz') as tar:
    for name, text in files.items():
      content = text.encode()
      entry = tarfile.TarInfo(name)
      entry.size = len(content)
      tar.addfile(entry, io.BytesIO(content))
  return memory.getvalue()


def sgm(lines):
  body = ''.join(
    f'<seg id="{i}">{line}</seg>\n' for i, line in enumerate(lines)
  )
  return f'<srcset>\n<doc docid="d" genre="n" origlang="de">\n{body}</doc>\n'


@pytest.fixture
def put_by_hand(tmp_path, monkeypatch, no_download):
  """The archive of wmt20, of two sentences, where the message says."""
  content = archive(
    {
      'sgm/newstest2020-deen-src.de.sgm': sgm(['Eins.', 'Zwei  .']),
      'sgm/newstest2020-deen-ref.en.sgm': sgm(['One.', 'Two.']),
    }
  )
  path = tmp_path / 'wmt20' / 'raw' / 'wmt20.test.tgz'
  path.parent.mkdir(parents=True)
  path.write_bytes(content)
  monkeypatch.setitem(wmt_data.SETS, 'wmt20', wmt_data.TestSet(2))
  known = sacrebleu_sets.DATASETS['wmt20']
  monkeypatch.setattr(known, 'md5', [hashlib.md5(content).hexdigest()])
  return path


def test_an_archive_put_there_by_hand_is_used(put_by_hand, tmp_path):
  expected = (['Eins.', 'Zwei .'], [('One.',), ('Two.',)])
  assert wmt_data.read('wmt20', cache=tmp_path) == expected
  put_by_hand.unlink()  # the text files are enough from now on
  assert wmt_data.read('wmt20', cache=tmp_path) == expected


def test_a_damaged_archive_is_refused(put_by_hand, tmp_path):
  content = bytearray(put_by_hand.read_bytes())
  content[-1] ^= 1
  put_by_hand.write_bytes(content)
  with pytest.raises(wmt_data.WmtDataError, match='has the MD5 sum'):
    wmt_data.read('wmt20', cache=tmp_path)
  assert not list(tmp_path.rglob('wmt20.de-en.*'))


def xml(sentences):
  """Two documents in WMT's format since 2021; the second has no reference B."""
  documents = ''.join(
    f"""<doc origlang="de" id="d{i}">
<src lang="de"><p><seg id="1">{source}</seg></p></src>
"""
    + ''.join(
      f'<ref lang="en" translator="{name}"><seg id="1">{text}</seg></ref>'
      for name, text in references.items()
    )
    + '</doc>'
    for i, (source, references) in enumerate(sentences)
  )
  return f'<dataset id="newstest2022">{documents}</dataset>'


def test_the_newer_format_has_two_references(
  tmp_path, monkeypatch, no_download
):
  known = sacrebleu_sets.DATASETS['wmt22']
  text = xml(
    [
      ('Hallo &amp; Tag.', {'A': 'Hello &amp; day.', 'B': 'Hi &amp; day.'}),
      ('Ja.', {'A': 'Yes.'}),
    ]
  )
  content = archive({known.langpairs['de-en'][0]: text})
  path = tmp_path / 'wmt22' / 'raw' / 'wmt22.v1.1.tar.gz'
  path.parent.mkdir(parents=True)
  path.write_bytes(content)
  fields = wmt_data.TestSet(2, ('ref-A', 'ref-B'))
  monkeypatch.setitem(wmt_data.SETS, 'wmt22', fields)
  monkeypatch.setattr(known, 'md5', [hashlib.md5(content).hexdigest()])
  assert wmt_data.read('wmt22', cache=tmp_path) == (
    ['Hallo & Tag.', 'Ja.'],
    [('Hello & day.', 'Hi & day.'), ('Yes.', '')],
  )


def test_the_set_that_sacrebleu_lacks(tmp_path, monkeypatch, no_download):
  raw = tmp_path / 'newssyscomb2009' / 'raw'
  raw.mkdir(parents=True)
  sums = []
  for language, text in (('deu', 'Ja.\nNein.\n'), ('eng', 'Yes.\nNo.\n')):
    file = raw / f'newssyscomb2009.newssyscomb2009.{language}'
    file.write_text(text)
    sums.append(hashlib.md5(text.encode()).hexdigest())
  monkeypatch.setitem(wmt_data.SETS, 'newssyscomb2009', wmt_data.TestSet(2))
  with pytest.raises(wmt_data.WmtDataError, match='has the MD5 sum'):
    wmt_data.read('newssyscomb2009', cache=tmp_path)
  monkeypatch.setattr(wmt_data, '_SYSCOMB_MD5', tuple(sums))
  assert wmt_data.read('newssyscomb2009', cache=tmp_path) == (
    ['Ja.', 'Nein.'],
    [('Yes.',), ('No.',)],
  )
