#!/usr/bin/env bash
# Stops the main with SIGTERM, and after a while with SIGKILL. If the main
# leaves no exit status, 143 is noted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ./common.sh
number=$(worker_number)
if running; then
  # start.sh gave the main a process group of its own.
  group=$(<"$run_folder/pid")
  kill -TERM -- "-$group" 2>/dev/null || true
  for ((i = 0; i < 200; i++)); do
    kill -0 -- "-$group" 2>/dev/null || break
    sleep 0.05
  done
  kill -KILL -- "-$group" 2>/dev/null || true
  [[ -e $run_folder/exit ]] || echo 143 >"$run_folder/exit"
fi
echo "dst_t5x worker $number stopped"
