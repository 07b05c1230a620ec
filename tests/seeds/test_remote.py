"""Seeds behind URLs: a plain web server, and a stand-in for Google Cloud.

The stand-in answers the two requests of Google's JSON interface that reading
needs, to TensorStore's own client of it. Folders are listed through epath,
whose functions look into a folder here instead.
"""

import functools
import http.server
import json
import os
import pathlib
import threading
import urllib.parse

import pytest
from etils.epath import gpath, testing

from dst_t5x import seeds
from dst_t5x.seeds import conversion, folders
from dst_t5x.seeds.errors import SeedError


class Bucket(http.server.BaseHTTPRequestHandler):
  """Objects are the files of a folder."""

  root: pathlib.Path

  def log_message(self, format, *args):
    pass

  def do_GET(self):
    url = urllib.parse.urlsplit(self.path)
    _, _, name = url.path.partition('/o/')
    if not name:
      prefix = dict(urllib.parse.parse_qsl(url.query)).get('prefix', '')
      self.reply(200, json.dumps({'items': self.listed(prefix)}).encode())
      return
    file = self.root / urllib.parse.unquote(name)
    if not file.is_file():
      self.reply(404, b'{}')
      return
    data = file.read_bytes()
    first, _, last = (
      self.headers.get('Range', '').removeprefix('bytes=').partition('-')
    )
    if not (first or last):
      self.reply(200, data)
      return
    start = int(first) if first else len(data) - int(last)
    stop = min(int(last) + 1, len(data)) if first and last else len(data)
    where = {'Content-Range': f'bytes {start}-{stop - 1}/{len(data)}'}
    self.reply(206, data[start:stop], where)

  def listed(self, prefix):
    return [
      {'name': name, 'size': '1', 'generation': '1'}
      for path in sorted(self.root.rglob('*'))
      if path.is_file()
      and (name := path.relative_to(self.root).as_posix()).startswith(prefix)
    ]

  def reply(self, code, data, more=None):
    self.send_response(code)
    for key, value in {
      'Content-Length': str(len(data)),
      'x-goog-generation': '1',
      **(more or {}),
    }.items():
      self.send_header(key, value)
    self.end_headers()
    self.wfile.write(data)


def serving(handler):
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  return server


@pytest.fixture
def written(tmp_path, params):
  """A folder with a checkpoint in each of two layouts."""
  for layout in ('t5x', 'orbax'):
    conversion.write(layout, params, tmp_path / layout, step=3)
  return tmp_path


@pytest.fixture
def bucket(written, monkeypatch):
  server = serving(type('Handler', (Bucket,), {'root': written}))
  address = f'http://127.0.0.1:{server.server_port}'
  monkeypatch.setenv('TENSORSTORE_GCS_HTTP_URL', address)
  # No search for credentials elsewhere.
  monkeypatch.setenv('GCE_METADATA_ROOT', '127.0.0.1:9')
  yield 'gs://bucket'
  server.shutdown()
  server.server_close()


@pytest.fixture
def web(written):
  class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
      pass

  server = serving(functools.partial(Quiet, directory=str(written)))
  yield f'http://127.0.0.1:{server.server_port}'
  server.shutdown()
  server.server_close()


def test_a_t5x_checkpoint_in_a_bucket_is_read(bucket, params):
  location = f'{bucket}/t5x/checkpoint_3'
  source = seeds.open_source(location)
  assert (source.location, source.layout, source.step) == (location, 't5x', 3)
  assert seeds.read(location).fingerprint == seeds.fingerprint(params)


def test_the_only_checkpoint_in_a_bucket_is_found(bucket):
  assert seeds.open_source(f'{bucket}/t5x').location == (
    f'{bucket}/t5x/checkpoint_3'
  )


def test_an_orbax_checkpoint_in_a_bucket_is_read(
  bucket, params, written, monkeypatch
):
  def here(original, path, *args, **options):
    return original(
      os.fspath(path).replace('gs://bucket', str(written)), *args, **options
    )

  location = f'{bucket}/orbax/checkpoint_3'
  with testing.mock_epath(
    open=here, exists=here, isdir=here, listdir=here, glob=here, stat=here
  ):
    # epath prefers TensorFlow's access to Google Cloud if that is there.
    mocked = gpath._PREFIX_TO_BACKEND['gs']
    monkeypatch.setattr(gpath.backend_lib, 'tf_backend', mocked)
    source = seeds.open_source(location)
    assert (source.layout, source.step) == ('orbax', 3)
    found = seeds.read(location)
  assert found.fingerprint == seeds.fingerprint(params)


def test_a_t5x_checkpoint_on_a_web_server_is_read(web, params):
  found = seeds.read(f'{web}/t5x/checkpoint_3')
  assert found.fingerprint == seeds.fingerprint(params)


def test_a_file_by_its_url_is_read(written, params):
  found = seeds.read((written / 't5x' / 'checkpoint_3').as_uri())
  assert found.fingerprint == seeds.fingerprint(params)


def test_an_empty_place_is_refused(bucket):
  with pytest.raises(SeedError, match='nothing that can be read lies there'):
    seeds.open_source(f'{bucket}/elsewhere')


@pytest.mark.parametrize(
  ('location', 'message'),
  [
    ('gs://bucket/seed.safetensors', 'copy it to this machine first'),
    ('ftp://host/checkpoint_3', 'cannot read ftp://host/checkpoint_3/checkpo'),
  ],
)
def test_what_is_not_read_from_afar_is_refused(location, message):
  with pytest.raises(SeedError, match=message):
    seeds.open_source(location)


def test_hugging_face_folders_are_not_read_from_afar(bucket, written):
  (written / 'hf').mkdir()
  (written / 'hf' / 'config.json').write_text('{}')
  with pytest.raises(SeedError, match='remote path; copy it to this machine'):
    seeds.open_source(f'{bucket}/hf')


def test_a_server_that_is_not_there_is_told_at_once():
  with pytest.raises(SeedError, match='cannot read http://127.0.0.1:9/a/check'):
    folders.read_file('http://127.0.0.1:9/a', 'checkpoint')
