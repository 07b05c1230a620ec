"""`dst-t5x launch`: starts T5X here, on Cloud TPU, or through XManager."""

import click

from dst_t5x.commands import cli

_SUMMARIES = {
  'local': 'Run a main of T5X in several processes on this machine.',
  'tpu': 'Run T5X on Cloud TPU, and leave nothing behind that costs money.',
  'xm': 'Run a main of T5X through XManager, here or on Vertex AI.',
}


class _Launchers(cli.LazyGroup):
  """The launchers, of which none is imported for help on all of them."""

  modules = {
    'local': 'dst_t5x.launch.local.local_command:local',
    'tpu': 'dst_t5x.launch.tpu.slice_commands:tpu',
    'xm': 'dst_t5x.launch.xm:xm',
  }

  def format_commands(
    self, ctx: click.Context, formatter: click.HelpFormatter
  ) -> None:
    """Writes the table of subcommands without importing them."""
    del ctx
    with formatter.section('Commands'):
      formatter.write_dl(list(_SUMMARIES.items()))


@click.group(cls=_Launchers)
def launch() -> None:
  """Start stock T5X in several processes, on Cloud TPU, or with XManager."""
