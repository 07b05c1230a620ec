"""`python -m dst_t5x.launch.tpu` is `dst-t5x launch tpu`."""

import sys

from dst_t5x.commands import cli

if __name__ == '__main__':
  cli.main(['launch', 'tpu', *sys.argv[1:]], prog_name='dst-t5x')
