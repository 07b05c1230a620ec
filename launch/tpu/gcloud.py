"""Runs gcloud, and says in a sentence what went wrong."""

import json
import shlex
import subprocess
from collections.abc import Sequence
from typing import Any, NamedTuple

import click


class CommandFailed(ValueError):
  """A command ended with a status other than 0.

  Attributes:
    errors: what it wrote to standard error.
  """

  def __init__(self, command: str, status: int, errors: str) -> None:
    self.errors = errors.strip()
    last = ''.join(f'\n  {line}' for line in self.errors.splitlines()[-15:])
    super().__init__(
      f'this command failed with status {status}:\n  {command}'
      + (f'\nIt said:{last}' if last else '')
    )

  @property
  def not_found(self) -> bool:
    """Whether it failed because the resource that it names does not exist."""
    # The name of the canonical error code, which gcloud passes on:
    # https://cloud.google.com/apis/design/errors.
    return 'NOT_FOUND' in self.errors


class Gcloud(NamedTuple):
  """The program `gcloud`.

  Attributes:
    executable: its name or path.
  """

  executable: str = 'gcloud'

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
    """Shows a command on standard error, and runs it to its end.

    Args:
      args: arguments of gcloud.
      quiet: do not show the command.

    Returns:
      What it wrote to standard output.

    Raises:
      CommandFailed: if it ended with a status other than 0.
      ValueError: if there is no such executable.
    """
    if not quiet:
      click.secho(f'$ {self.typed(args)}', err=True, dim=True)
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
    """Runs a command whose output is JSON, without showing the command.

    Args:
      args: arguments of gcloud, with --format=json.

    Raises:
      CommandFailed: if it fails, or if its output is no JSON.
      ValueError: if there is no such executable.
    """
    output = self.call(args, quiet=True)
    try:
      return json.loads(output)
    except ValueError as error:
      raise CommandFailed(
        self.typed(args), 0, f'it wrote no JSON ({error}): {output[:200]}'
      ) from error
