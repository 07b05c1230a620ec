"""All commands follow the table of steps."""

import dataclasses
import pathlib
import re
import subprocess
import sys

import click
import pytest

from dst_t5x.launch.tpu import (
  parcels,
  slice_commands,
  state_file,
  step_table,
  whole_run,
)

RUN = state_file.Run('demo', 'us-central2-b', 'lab', 'v4-8', main='train')


def help_of(name):
  command = slice_commands.tpu.commands[name]
  with click.Context(command) as context:
    return ' '.join(command.get_help(context).split())


@pytest.mark.parametrize('step', step_table.STEPS, ids=lambda step: step.name)
def test_each_step_is_a_command_whose_help_is_the_table(step):
  assert f'{step.summary} It is done when {step.done_when}.' in help_of(
    step.name
  )


def test_each_step_needs_one_before_it():
  names = [step.name for step in step_table.STEPS]
  for index, step in enumerate(step_table.STEPS):
    assert step.needs in (None, *names[:index])


def test_up_names_all_steps_in_order():
  names = ', '.join(step.name for step in step_table.STEPS)
  assert f'{names}.' in help_of('up')


@pytest.mark.parametrize(
  ('run', 'left_out'),
  [
    (dataclasses.replace(RUN, finish=True), ''),
    (dataclasses.replace(RUN, main='eval', finish=True), 'fetch'),
    (RUN, 'fetch delete'),
    (
      dataclasses.replace(RUN, main=None),
      'install copy run follow fetch delete',
    ),
  ],
)
def test_steps_that_a_run_needs(run, left_out):
  assert [step.name for step in whole_run.wanted(run)] == [
    step.name for step in step_table.STEPS if step.name not in left_out.split()
  ]


def test_the_newest_checkpoint_is_asked_for_by_code_that_runs(tmp_path):
  """In other tests a stand-in answers in place of the worker's Python."""
  script = pathlib.Path(parcels.WORKER, 'export.sh').read_text()
  (code,) = re.findall(r"bin/python\" -c '(.*?)'", script, re.S)
  for step in (8, 10):
    (tmp_path / f'checkpoint_{step}').mkdir()
  said = subprocess.run(
    [sys.executable, '-c', code, str(tmp_path)],
    capture_output=True,
    text=True,
    check=False,
  )
  assert said.stderr == ''
  assert said.stdout == f'{tmp_path}/checkpoint_10\n'


def test_the_readme_shows_the_table():
  readme = (parcels.WORKER.parents[1] / 'README.md').read_text()
  rows = re.findall(r'^\| `(\w+)` \| .* \| (.*) \|$', readme, re.M)
  assert rows == [(step.name, step.done_when) for step in step_table.STEPS]
