#!/usr/bin/env bash
# Writes the delta of the newest checkpoint to a file.
#
#   export.sh MODEL_DIR FILE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ./common.sh
model_dir=$1 file=$2
cd "$root/recipe" # A relative MODEL_DIR is relative to this.
export JAX_PLATFORMS=cpu # The TPU may still be in use.
checkpoint=$("$venv/bin/python" -c 'import sys
from dst_t5x.checkpoint import delta_checkpoint
print(delta_checkpoint.latest(sys.argv[1]) or "")' "$model_dir")
if [[ -z $checkpoint ]]; then
  echo "there is no checkpoint in $model_dir" >&2
  exit 1
fi
"$venv/bin/dst-t5x" delta export --overwrite "$checkpoint" "$HOME/$file"
echo "dst_t5x exported $checkpoint"
