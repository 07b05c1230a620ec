"""Tasks by name on a command line: what registers them, and their settings.

The files in gin/tasks/ say which vocabulary, end mark and lengths a task has;
here they are read for one task, and options take their place.
"""

import contextlib
import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import click

# Gin file in gin/tasks/ → module of dst_t5x.tasks, and a beginning of the names
# that it registers. The first that fits counts.
FILES: Mapping[str, tuple[str, tuple[str, ...]]] = {
  'number_words': ('number_words', ('number_words',)),
  'super_glue': ('superglue', ('super_glue_', 'dpr_v001_simple')),
  'trivia_qa': ('triviaqa', ('trivia_qa_open',)),
  'wmt22': ('wmt22', ('wmt22_de_en',)),
  'gsm8k': ('gsm8k', ('gsm8k',)),
}
# Tokens, for a task of the user's own module.
DEFAULT_LENGTHS = {'inputs': 256, 'targets': 256}


class TaskOptions(NamedTuple):
  """Options of a command line that take the place of a gin file's settings.

  Attributes:
    seed_vocab: 't5', 'byte' or a path; None for the file's.
    end_of_document: mark; None for the file's.
    tfds_data_dir: directory; None for TFDS's own.
    inputs_length: tokens (count); None for the file's.
    targets_length: tokens (count); None for the file's.
  """

  seed_vocab: str | None = None
  end_of_document: str | None = None
  tfds_data_dir: str | None = None
  inputs_length: int | None = None
  targets_length: int | None = None


class TaskSettings(NamedTuple):
  """What a task's gin file and the options say together.

  Attributes:
    lengths: tokens of 'inputs' and of 'targets' (count).
    beam_size: beams (count); 1 decodes greedily.
  """

  lengths: dict[str, int]
  beam_size: int


def import_all() -> None:
  """Registers all tasks of this package."""
  # First: it keeps TensorFlow quiet.
  importlib.import_module('dst_t5x.standalone.quiet_tensorflow')
  for module, _ in FILES.values():
    importlib.import_module(f'dst_t5x.tasks.{module}')


def gin_file(name: str) -> str | None:
  """Returns the gin file of a task of this package, None for other tasks.

  Args:
    name: of a task or mixture.

  Returns:
    Relative to the gin root.

  Example:
    >>> gin_file('super_glue_rte_v102')
    'tasks/super_glue.gin'
  """
  for file, (_, beginnings) in FILES.items():
    if name.startswith(beginnings):
      return f'tasks/{file}.gin'
  return None


def prepare(name: str, options: TaskOptions) -> TaskSettings:
  """Binds a task's vocabulary and end mark, and returns its other settings.

  Args:
    name: of a task or mixture.
    options: what takes the place of its gin file's settings.

  Returns:
    Its settings.

  Raises:
    ValueError: if an option cannot be used.

  Example:
    >>> prepare('gsm8k', TaskOptions(targets_length=64))
    TaskSettings(lengths={'inputs': 256, 'targets': 64}, beam_size=1)
  """
  import_all()
  import gin
  import seqio

  from dst_t5x.recipes import gin_path
  from dst_t5x.standalone import gin_host
  from dst_t5x.tasks import vocabularies

  if options.tfds_data_dir is not None:
    seqio.set_tfds_data_dir_override(options.tfds_data_dir)
  settings: dict[str, Any] = {
    'TASK_FEATURE_LENGTHS': DEFAULT_LENGTHS,
    'BEAM_SIZE': 1,
  }
  file = gin_file(name)
  gin.clear_config()
  with gin_host.no_logs(), gin.unlock_config():
    if file is not None:
      gin.add_config_file_search_path(str(gin_path.root()))
      gin.parse_config_file(file)
      for macro in settings:
        with contextlib.suppress(ValueError):  # gin's, if it is not bound
          settings[macro] = gin.query_parameter(f'{macro}/gin.macro.value')
    if options.seed_vocab is not None:
      gin.bind_parameter(
        'task_vocabulary.vocabulary', vocabularies.named(options.seed_vocab)
      )
    if options.end_of_document is not None:
      # A shell has no simple way to give a line end.
      mark = options.end_of_document.replace('\\n', '\n')
      gin.bind_parameter('end_of_document.suffix.text', mark)
  given = {
    'inputs': options.inputs_length,
    'targets': options.targets_length,
  }
  lengths = settings['TASK_FEATURE_LENGTHS'] | {
    key: length for key, length in given.items() if length is not None
  }
  return TaskSettings(lengths, settings['BEAM_SIZE'])


def task_options(command: Callable[..., Any]) -> Callable[..., Any]:
  """Adds the options of `TaskOptions` to a click command.

  Args:
    command: whose function takes them by name.

  Returns:
    The command.
  """
  for option in reversed(_OPTIONS):
    command = option(command)
  return command


_OPTIONS = (
  click.option(
    '--seed-vocab',
    metavar='VOCAB',
    help="Vocabulary: 't5', 'byte' or a SentencePiece file, instead of the "
    "task's (T5's).",
  ),
  click.option(
    '--end-of-document',
    metavar='TEXT',
    help=r"Mark that ends targets, where predictions are cut; '\n[eod]'.",
  ),
  click.option(
    '--tfds-data-dir',
    metavar='DIR',
    help='Where TFDS data sets are, instead of TFDS_DATA_DIR.',
  ),
  click.option('--inputs-length', type=int, help="Tokens; the task's own."),
  click.option('--targets-length', type=int, help="Tokens; the task's own."),
)
