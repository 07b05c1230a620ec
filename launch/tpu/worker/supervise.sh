#!/usr/bin/env bash
# Runs a command, and writes its process number and its exit status to files.
#
#   supervise.sh FOLDER COMMAND…
set -uo pipefail
folder=$1
shift
echo $$ >"$folder/pid.new" && mv "$folder/pid.new" "$folder/pid"
status=0
"$@" || status=$?
echo "$status" >"$folder/exit.new" && mv "$folder/exit.new" "$folder/exit"
