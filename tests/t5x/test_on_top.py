"""A method on top of configurations that know nothing of this package."""

import pathlib
import re
import subprocess
import sys
from typing import Any

import gin
import jax
import pytest
from click.testing import CliRunner
from t5x import adafactor, optimizers, utils  # type: ignore
from t5x import checkpoints as t5x_checkpoints  # type: ignore

from dst_t5x.arrays.paths import named_leaves
from dst_t5x.commands import cli
from dst_t5x.core import methods
from dst_t5x.hooks import restore, save_checks, subset_metrics
from dst_t5x.hooks.on_top import initializer as on_top
from dst_t5x.hooks.on_top import user_checkpoints
from dst_t5x.hooks.on_top.user_checkpoints import OnTopError
from dst_t5x.hooks.optimizer import Selective
from dst_t5x.recipes import gin_path
from dst_t5x.recipes.unread_method import UnreadMethodError
from dst_t5x.seeds import sharded
from tests import checks
from tests.t5x import captured_mains, runs, trained_configs

ROOT = gin_path.t5x_root()
assert ROOT is not None
FOLDER = ROOT / 't5x'
FILES = sorted(
  str(path.relative_to(FOLDER))
  for pattern in ('examples/**/*.gin', 'configs/runs/*.gin')
  for path in FOLDER.glob(pattern)
)
ON_TOP = trained_configs.ON_TOP
FINETUNE, PRETRAIN, EVAL, INFER = (
  f't5x/configs/runs/{name}.gin'
  for name in ('finetune', 'pretrain', 'eval', 'infer')
)
TINY = 't5x/examples/t5/t5_1_1/tiny.gin'
GIVEN = (
  "MIXTURE_OR_TASK_NAME = 'number_words'",
  "TASK_FEATURE_LENGTHS = {'inputs': 8, 'targets': 8}",
  "MODEL_DIR = '/no/such/run'",
  'TRAIN_STEPS = 1_000_100',
)
SEED = "INITIAL_CHECKPOINT_PATH = 'shapes alone'"
READ = (
  "CHECKPOINT_PATH = 'run/checkpoint_1'",
  "EVAL_OUTPUT_DIR = 'out'",
  "INFER_OUTPUT_DIR = 'out'",
  'DROPOUT_RATE = 0.0',
  SEED,
  "TF_EXAMPLE_FILE_PATHS = ['examples']",
  "TF_EXAMPLE_FILE_TYPE = 'tfrecord'",
  "FEATURE_LENGTHS = {'inputs': 8}",
)
EXPORT = ("MODEL_OUTPUT_DIR = 'out'", "MODEL_NAME = 'model'")
# Deep networks take their time to be traced. Of those that differ in nothing
# but their sizes and data, the long run alone builds all.
QUICK = re.compile(
  r'configs/runs|/tiny\.gin$|scalable_t5/\w+/small\.gin$|decoder_only/models/base'
  r'|/test_train_t5|/small_wmt|_adamw|_lion|/local_tiny'
)


def _table() -> dict[str, str]:
  """What gin/README.md says of every file that T5X ships."""
  text = (gin_path.root() / 'README.md').read_text()
  row = re.compile(r'^\| `((?:configs|examples)/\S+)` \| ([\w ]+) \|', re.M)
  said: dict[str, str] = {}
  for pattern, outcome in row.findall(text):
    matches = [str(p.relative_to(FOLDER)) for p in FOLDER.glob(pattern)]
    assert matches, pattern
    for name in matches:
      assert name not in said, f'{name} is in two rows'
      said[name] = outcome
  return said


TABLE = _table()


@pytest.fixture(autouse=True)
def in_t5x(monkeypatch):
  """Some files are found from T5X's own folder only."""
  monkeypatch.chdir(ROOT)


@pytest.fixture
def no_values(monkeypatch) -> dict[str, Any]:
  """Seeds that have the shapes of the model under 'model', and no values."""
  model: dict[str, Any] = {}

  class Seed(captured_mains.ShapesAlone):
    def __init__(self):
      super().__init__({})

    def specs(self) -> dict[str, Any]:
      shapes = captured_mains.shapes_of(model['model'])
      return {
        path: jax.ShapeDtypeStruct(x.shape, x.dtype)
        for path, x in named_leaves(shapes).items()
      }

  monkeypatch.setattr(sharded, 'open_source', lambda *_, **__: Seed())
  monkeypatch.setattr(sharded, 'fingerprint', lambda _: 'sha256:none')
  return model


def _begin(model: dict[str, Any]) -> tuple[dict[str, Any], Any]:
  """What gin hands to `train`, and the initializer that T5X makes of it."""
  arguments = captured_mains.arguments_of('train')
  model['model'] = arguments['model']
  initializer = arguments['train_state_initializer_cls'](
    optimizer_def=arguments['model'].optimizer_def,
    init_fn=arguments['model'].get_initial_variables,
    input_shapes=captured_mains.input_shapes(arguments['model']),
    partitioner=arguments['partitioner'],
  )
  return arguments, initializer


def test_the_table_has_every_file_that_t5x_ships():
  assert set(TABLE) == set(FILES)
  assert set(TABLE.values()) == {'works', 'refused', 'fails in T5X', 'part'}


def _is_whole(name: str) -> bool:
  return 'configs/runs' in name or bool(
    re.search(r'configs/runs|_common', (FOLDER / name).read_text())
  )


WORKING = [name for name, outcome in TABLE.items() if outcome == 'works']
INFERENCE = [
  name
  for name in WORKING
  if re.search(r'eval_script|infer_script', (FOLDER / name).read_text())
]
# Sizes beside a run, as examples/t5/local_tiny.gin wants them.
OVERRIDES = 'examples/t5/local_tiny.gin'


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(n, marks=[] if QUICK.search(n) else [pytest.mark.slow])
    for n in WORKING
    if n not in INFERENCE
  ],
)
def test_training_configurations_are_built(name, no_values):
  files = [f't5x/{name}']
  if name.startswith('configs/runs'):
    files = [TINY, *files]
  elif name == OVERRIDES:
    files = [TINY, PRETRAIN, *files]
  elif not _is_whole(name):
    files = [*files, FINETUNE]
  bindings = [*GIVEN, SEED, 'EPSILON = 1e-3', 'DROPOUT_RATE = 0.0']
  with captured_mains.read([*files, *ON_TOP], bindings):
    arguments, initializer = _begin(no_values)
    assert arguments['checkpoint_cfg'].restore is None
    keeper = initializer._keeper
    total = keeper.plan.total
    assert keeper.plan.budget == round(1e-3 * total)
    # The model's own optimizer proposes.
    inner = initializer._optimizer_def.inner
    assert type(inner) is type(arguments['model'].optimizer_def)
  leaves = named_leaves(captured_mains.shapes_of(no_values['model']))
  assert total == sum(x.size for x in leaves.values())


@pytest.mark.parametrize('name', INFERENCE)
def test_evaluations_and_inferences_are_connected(name):
  files = [f't5x/{name}']
  if name.startswith('configs/runs'):
    files = [TINY, *files]
  with captured_mains.read(
    [*files, 'hosts/on_top_t5x.gin'], [*GIVEN[:2], *READ, 'DROPOUT_RATE = 0.0']
  ):
    main = (
      'evaluate' if 'eval_script' in (FOLDER / name).read_text() else 'infer'
    )
    arguments = captured_mains.arguments_of(main)
    path = gin.get_configurable(user_checkpoints.checkpoint_path)()
  initializer = arguments['train_state_initializer_cls']
  assert issubclass(initializer, restore.InferenceInitializer)
  assert path == arguments['restore_checkpoint_cfg'].path


@pytest.mark.parametrize(
  'name', [n for n, outcome in TABLE.items() if outcome == 'refused']
)
def test_other_mains_are_refused(name):
  with (
    pytest.raises(OnTopError, match='dst-t5x delta merge'),
    captured_mains.read(
      [TINY, f't5x/{name}', *ON_TOP],
      [*GIVEN, *READ, *EXPORT, 'EPSILON = 1e-3'],
    ),
  ):
    pass


@pytest.mark.parametrize(
  'name', [n for n, outcome in TABLE.items() if outcome == 'fails in T5X']
)
def test_what_fails_without_us_fails_with_us(name):
  files = [f't5x/{name}']
  if name.endswith('local_tiny.gin'):
    files = ['t5x/examples/scalable_t5/t5_1_1/small.gin', PRETRAIN, *files]
  said = []
  for extra in ((), ON_TOP):
    with (
      pytest.raises(Exception) as error,
      captured_mains.read([*files, *extra], [*GIVEN, SEED]),
    ):
      pass
    # Where it searched, and in which object's configuration, are left out.
    text = re.sub(r'Searched config.*|0x\w+', '', str(error.value))
    said.append((error.type.__name__, text))
  assert said[0] == said[1]
  assert said[0][0] != 'OnTopError'


def test_a_method_that_nothing_reads_is_refused():
  bindings = [*GIVEN, SEED, 'EPSILON = 1e-3']
  with (
    pytest.raises(UnreadMethodError, match='hosts/on_top_t5x.gin'),
    captured_mains.read([TINY, FINETUNE, 'methods/dst.gin'], bindings),
  ):
    pass
  # Without a method it is T5X's own affair.
  with captured_mains.read([TINY, FINETUNE], bindings):
    pass


@pytest.mark.parametrize(
  ('files', 'bindings', 'message'),
  [
    ([TINY, FINETUNE, ON_TOP[1]], [SEED], 'methods/dst.gin'),
    ([*ON_TOP], [], 'give your own --gin_file'),
    ([TINY, FINETUNE, *ON_TOP], [SEED, 'EPSILON = 1.5'], 'epsilon=1.5'),
    ([TINY, FINETUNE, *ON_TOP], [SEED, 'BUDGET = 0'], 'budget=0'),
    (
      [TINY, FINETUNE, *ON_TOP],
      [SEED, 'train_script.train.use_orbax = False'],
      'use_orbax',
    ),
    (
      [
        *('models/byte_tiny.gin', 'methods/dst.gin'),
        *('tasks/number_words.gin', 'runs/finetune_t5x.gin', ON_TOP[1]),
      ],
      [SEED],
      'leave one of them out',
    ),
  ],
)
def test_what_cannot_be_put_on_top_is_refused_when_gin_has_read(
  files, bindings, message
):
  with (
    pytest.raises(ValueError, match=message),
    captured_mains.read(files, [*GIVEN, 'EPSILON = 1e-3', *bindings]),
  ):
    pass


def _tiny(*bindings: str, run: str = FINETUNE) -> Any:
  given = [*GIVEN, 'DROPOUT_RATE = 0.0', 'EPSILON = 1e-3']
  return captured_mains.read([TINY, run, *ON_TOP], [*given, *bindings])


def test_pretraining_needs_a_seed(no_values):
  with _tiny(run=PRETRAIN), pytest.raises(OnTopError, match='needs a seed'):
    _begin(no_values)


def test_what_the_user_binds_stays(no_values):
  trainer_cls = 'train_script.train.trainer_cls'
  with _tiny(
    SEED,
    'RANDOM_SEED = 7',
    'partitioning.PjitPartitioner.num_partitions = 2',
    'utils.SaveCheckpointConfig.period = 77',
    'adafactor.Adafactor.decay_rate = 0.7',
    'SILOS = "tensor"',
    'SILO_METRICS = True',
  ):
    assert gin.query_parameter(trainer_cls).selector.endswith('checked_trainer')
    arguments, initializer = _begin(no_values)
    trainer = gin.query_parameter('checked_trainer.trainer_cls')
    assert trainer.selector.endswith('trainer.Trainer')
    computer = gin.query_parameter('trainer.Trainer.weight_metrics_computer')
    assert computer.configurable.wrapped is subset_metrics.SubsetMetrics
    assert gin.get_configurable(subset_metrics.SubsetMetrics)()._by_silo
  optimizer = initializer._optimizer_def
  assert optimizer.random_seed == 7
  assert optimizer.silo_scheme == 'tensor'
  assert optimizer.inner.hyper_params.decay_rate == 0.7
  assert arguments['checkpoint_cfg'].save.period == 77
  assert arguments['partitioner']._num_partitions == 2


def test_a_metrics_computer_of_the_user_stays():
  with _tiny(SEED, "trainer.Trainer.weight_metrics_computer = 'mine'"):
    value = gin.query_parameter('trainer.Trainer.weight_metrics_computer')
  assert value == 'mine'


def test_learning_rate_reaches_the_schedule():
  name = 'utils.create_learning_rate_scheduler.base_learning_rate'
  with _tiny(SEED, 'LEARNING_RATE = 0.25'):
    assert repr(gin.query_parameter(name)) == '%LEARNING_RATE'
    schedule = gin.get_configurable(utils.create_learning_rate_scheduler)()
    assert schedule(3) == 0.25
  with _tiny(SEED):
    assert gin.query_parameter(name) == 0.001


def test_a_low_rate_is_warned_of(no_values, caplog):
  with _tiny(SEED):
    _begin(no_values)
  assert '--gin.LEARNING_RATE=0.631' in caplog.text
  caplog.clear()
  with _tiny(SEED, 'LEARNING_RATE = 0.5'):
    _begin(no_values)
  assert 'the rule' not in caplog.text


def test_relative_steps_are_the_runs_own(no_values, monkeypatch):
  lengths = []
  monkeypatch.setattr(
    Selective, 'set_total_steps', lambda _, steps: lengths.append(steps)
  )
  with _tiny(SEED):
    _begin(no_values)
  with _tiny(SEED, 'TRAIN_STEPS_RELATIVE = 40'):
    _begin(no_values)
  assert lengths == [100, 40]


def test_the_seeds_steps_are_no_offset():
  offset = adafactor.Adafactor(step_offset=1_000_000)
  inner = on_top.from_the_seed_on(offset, 1_000_000)
  assert inner.hyper_params.step_offset == 0
  assert offset.hyper_params.step_offset == 1_000_000
  # Any other offset is an intention that would be lost.
  with pytest.raises(ValueError, match='step_offset=3'):
    Selective(
      on_top.from_the_seed_on(adafactor.Adafactor(step_offset=3), 1_000_000),
      methods.dst(),
    )


@pytest.mark.parametrize('optimizer', [None, 'ours'])
def test_optimizers_that_cannot_be_wrapped(optimizer):
  if optimizer:
    optimizer = Selective(optimizers.sgd(0.1), methods.dst(), epsilon=0.1)
  with pytest.raises(OnTopError, match='optimizer_def'):
    on_top.from_the_seed_on(optimizer, 0)


def _restoring(**options: Any) -> Any:
  cfg = utils.RestoreCheckpointConfig(**{'path': 'seed', **options})
  return utils.CheckpointConfig(restore=cfg)


def test_the_seed_is_what_the_configuration_restores():
  assert user_checkpoints.restored_path(_restoring()) == 'seed'
  assert user_checkpoints.restored_path(_restoring(path=['seed'])) == 'seed'
  dropped = ((r'state/param_states.*', None),)
  assert (
    user_checkpoints.restored_path(_restoring(assignment_map=dropped)) == 'seed'
  )
  for options, message in (
    ({'path': []}, 'needs a seed'),
    ({'path': ['a', 'b']}, 'names 2'),
    ({'assignment_map': (('a', 'b'),)}, 'assignment_map'),
    ({'state_transformation_fns': [lambda x: x]}, 'state_transformation_fns'),
  ):
    with pytest.raises(OnTopError, match=message):
      user_checkpoints.restored_path(_restoring(**options))


def test_the_newest_checkpoint_of_a_folder(tmp_path):
  for step in (2, 10):
    (tmp_path / f'checkpoint_{step}').mkdir()
    (tmp_path / f'checkpoint_{step}' / 'checkpoint').touch()
  cfg = _restoring(path=str(tmp_path), mode='latest')
  assert user_checkpoints.restored_path(cfg).endswith('checkpoint_10')


def test_a_configuration_that_t5x_wrote_is_read_again(tmp_path):
  with _tiny(SEED):
    (tmp_path / 'config.gin').write_text(gin.config_str())
  with captured_mains.read([str(tmp_path / 'config.gin')]):
    arguments = captured_mains.arguments_of('train')
  cls = arguments['train_state_initializer_cls']
  assert issubclass(cls, on_top.TrainInitializer)
  assert (
    arguments['trainer_cls'].__name__ == save_checks.checked_trainer.__name__
  )


# One process trains several, in T5X's own `train`.
TRAINED = ('t5_1_1_tiny', 'scalable_t5', 'decoder_only')


def _trained(folder: pathlib.Path, names: tuple[str, ...]) -> None:
  line = [sys.executable, '-m', 'tests.t5x.trained_configs', str(folder)]
  here = str(pathlib.Path(__file__).parents[2])
  done = subprocess.run(
    [*line, *names],
    cwd=ROOT,
    env={**runs.environment(), 'PYTHONPATH': here},
    capture_output=True,
    text=True,
    timeout=1200,
  )
  assert done.returncode == 0, done.stderr[-6000:]


@pytest.fixture(scope='session')
def trained(once) -> pathlib.Path:
  return once('on_top', lambda folder: _trained(folder, TRAINED))


@pytest.fixture(scope='session')
def trained_long(once) -> pathlib.Path:
  rest = tuple(sorted(set(trained_configs.TRAINED) - set(TRAINED)))
  return once('on_top_long', lambda folder: _trained(folder, rest))


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=[] if name in TRAINED else [pytest.mark.slow])
    for name in trained_configs.TRAINED
  ],
)
def test_small_ones_are_trained(name, request, tmp_path):
  fixture = 'trained' if name in TRAINED else 'trained_long'
  folder = request.getfixturevalue(fixture) / name
  assert runs.steps(folder / 'run')[-1] == 5
  checkpoint = folder / 'run' / 'checkpoint_5'
  merged = tmp_path / 'merged'
  result = CliRunner().invoke(
    cli.main, ['delta', 'merge', str(checkpoint), str(merged)]
  )
  assert result.exit_code == 0, result.output
  (whole,) = merged.glob('checkpoint_*')
  before, after = (
    checks.flat(t5x_checkpoints.load_t5x_checkpoint(str(path))['target'])
    for path in (folder / 'seed' / 'checkpoint_3', whole)
  )
  changed = sum(int(x.sum()) for x in checks.changed(before, after).values())
  total = sum(x.size for x in before.values())
  counts = [
    int(array.sum())
    for path, array in runs.arrays(checkpoint).items()
    if path.startswith('state/counts/')
  ]
  assert 0 < changed <= round(trained_configs.EPSILON * total)
  assert changed == sum(counts)
