#!/usr/bin/env bash
# Starts a main of T5X that outlives this connection.
#
#   start.sh ATTEMPT t5x.train|t5x.eval|t5x.infer T5X_FLAGS…
#
# Called twice with the same ATTEMPT, as happens when a connection breaks, it
# starts only one main. The folder ~/dst_t5x_run/run then holds `log`, `pid`
# and, once the main has ended, `exit` with its exit status.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ./common.sh
scripts=$PWD
attempt=$1 main=$2
shift 2
number=$(worker_number)

mkdir -p "$run_folder" "$root/recipe"
exec 9>"$run_folder/lock"
flock 9
if [[ -e $run_folder/attempt && $(<"$run_folder/attempt") == "$attempt" ]]; then
  echo "dst_t5x worker $number started already"
  exit
fi
if running; then
  echo "dst_t5x worker $number still runs attempt $(<"$run_folder/attempt")"
  exit 1
fi
rm -f "$run_folder/exit" "$run_folder/pid"
[[ ! -e $run_folder/log ]] || mv "$run_folder/log" "$run_folder/log.before"

cd "$root/recipe"
folders=$root/recipe,$("$venv/bin/dst-t5x" gin-path)
export PYTHONPATH=$root/t5x:$root/airio:$root/jestimator
setsid nohup bash "$scripts/supervise.sh" "$run_folder" \
  "$venv/bin/python" -m dst_t5x.launch.t5x_main --auto "$main" \
  --gin_search_paths="$folders" "$@" \
  </dev/null >"$run_folder/log" 2>&1 9>&- &
for ((i = 0; i < 500; i++)); do
  [[ ! -e $run_folder/pid ]] || break
  sleep 0.02
done
[[ -e $run_folder/pid ]] || { cat "$run_folder/log"; exit 1; }
# Written last, so that a start that failed half-way can be repeated.
echo "$attempt" >"$run_folder/attempt"
echo "dst_t5x worker $number started"
