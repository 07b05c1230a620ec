"""What the command lines of all launchers have in common."""

import click

from . import stock_mains

main_argument = click.argument(
  'main', type=click.Choice(stock_mains.MAINS), metavar='train|eval|infer'
)
dry_run = click.option(
  '--dry-run',
  is_flag=True,
  help='Print the commands, quoted for a shell, and run none.',
)


class T5XCommand(click.Command):
  """A command that takes T5X's flags after `--`.

  The callback gets them, untouched, as a tuple named `flags`.
  """

  def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
    """Returns the parts of the line that begins with 'Usage:'."""
    return [*super().collect_usage_pieces(ctx), '-- T5X_FLAGS...']

  def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
    """Parses what is before `--`, and keeps what is after it.

    Raises:
      click.UsageError: if an option before `--` is unknown.
    """
    end = args.index('--') if '--' in args else len(args)
    try:
      rest = super().parse_args(ctx, args[:end])
    except click.NoSuchOption as error:
      if error.possibilities and not error.option_name.startswith('--gin'):
        raise
      raise click.UsageError(
        f"no option {error.option_name} here; T5X's own flags come after --",
        ctx,
      ) from error
    ctx.params['flags'] = tuple(args[end + 1 :])
    return rest
