#!/usr/bin/env bash
# Prints how the main is doing, in one line, and then what is new in its log.
#
#   status.sh OFFSET
#
# The line is `dst_t5x worker K STATE LOG_BYTES`. STATE is `running`,
# `exited:N`, `lost` (the main is gone without an exit status, as after a
# restart) or `absent`. Worker 0 then prints its log from byte OFFSET on, whole
# lines only, up to 1 MB; any other worker whose main failed prints the end of
# its log.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ./common.sh
offset=$1
number=$(worker_number)
log=$run_folder/log
part=$run_folder/part

if running; then
  state=running
elif [[ -e $run_folder/exit ]]; then
  state=exited:$(<"$run_folder/exit")
elif [[ -e $run_folder/pid ]]; then
  state=lost
else
  state=absent
fi

: >"$part"
if [[ $number == 0 && -e $log ]]; then
  tail -c "+$((offset + 1))" "$log" | head -c 1000000 >"$part.new"
  if [[ $state == running ]]; then
    # The last line may not be whole yet.
    head -n "$(wc -l <"$part.new")" "$part.new" >"$part"
  else
    mv "$part.new" "$part"
  fi
elif [[ -e $log && $state != running && $state != exited:0 ]]; then
  tail -n 60 "$log" >"$part"
fi
echo "dst_t5x worker $number $state $((offset + $(wc -c <"$part")))"
cat "$part"
