"""Runs gcloud, and says in one sentence what went wrong."""

import json
import shlex
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import click


class CommandFailed(ValueError):
  """A command ended with a status other than 0.

  Attributes:
    command: as one would type it.
    status: its exit status.
    said: the end of what it wrote to standard error.
  """

  def __init__(self, command: str, status: int, said: str) -> None:
    self.command = command
    self.status = status
    self.said = said.strip()
    tail = '\n'.join(self.said.splitlines()[-15:])
    super().__init__(
      f'this command failed with status {status}:\n  {command}'
      + (f'\nIt said:\n{_indented(tail)}' if tail else '')
    )

  @property
  def not_found(self) -> bool:
    """Whether it failed because what it names does not exist."""
    # The name of the canonical error code, which gcloud passes on:
    # https://cloud.google.com/apis/design/errors.
    return 'NOT_FOUND' in self.said


class Gcloud:
  """The executable, and whether its commands are shown.

  Attributes:
    executable: name or path.
    show: takes each command before it runs, as one would type it.
  """

  def __init__(
    self, executable: str = 'gcloud', show: Callable[[str], None] | None = None
  ) -> None:
    self.executable = executable
    self.show = show or (lambda command: None)

  def typed(self, args: Sequence[str]) -> str:
    r"""Returns a command as one would type it.

    Args:
      args: arguments of gcloud.

    Returns:
      The command, quoted for a shell.

    Example:
      >>> Gcloud().typed(['version', "--format=it's"])
      'gcloud version \'--format=it\'"\'"\'s\''
    """
    return shlex.join([self.executable, *args])

  def call(self, args: Sequence[str], *, quiet: bool = False) -> str:
    """Runs a command to its end.

    Args:
      args: arguments of gcloud.
      quiet: do not show it.

    Returns:
      What it wrote to standard output.

    Raises:
      CommandFailed: if it ended with a status other than 0.
      ValueError: if there is no such executable.
    """
    if not quiet:
      self.show(self.typed(args))
    try:
      ended = subprocess.run(
        [self.executable, *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding='utf-8',
        errors='replace',
        check=False,
      )
    except (FileNotFoundError, PermissionError) as error:
      raise ValueError(
        f'{self.executable!r} cannot be run ({error.strerror}): install the '
        'Google Cloud CLI (https://cloud.google.com/sdk/docs/install), or name '
        'it with --gcloud'
      ) from error
    if ended.returncode:
      raise CommandFailed(self.typed(args), ended.returncode, ended.stderr)
    return ended.stdout

  def json(self, args: Sequence[str]) -> Any:
    """Runs a command whose output is JSON, without showing it.

    Args:
      args: arguments of gcloud, with --format=json.

    Returns:
      The value.

    Raises:
      CommandFailed: if it fails, or if what it writes is no JSON.
      ValueError: if there is no such executable.
    """
    output = self.call(args, quiet=True)
    try:
      return json.loads(output)
    except ValueError as error:
      raise CommandFailed(
        self.typed(args), 0, f'it wrote no JSON ({error}): {output[:200]}'
      ) from error


def shown(command: str) -> None:
  """Shows a command on standard error.

  Args:
    command: as one would type it.
  """
  click.secho(f'$ {command}', err=True, dim=True)


def _indented(text: str) -> str:
  return '\n'.join(f'  {line}' for line in text.splitlines())
