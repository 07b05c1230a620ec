# shellcheck shell=bash
# What the other scripts share; they source it.

root=$HOME/dst_t5x_run
# shellcheck disable=SC2034 # the scripts that source this use it
venv=$root/venv
run_folder=$root/run

# metadata KEY: a value that Cloud TPU gave to this worker, or nothing. JAX asks
# the same server (jax/_src/clusters/cloud_tpu_cluster.py).
metadata() {
  local host=${GCE_METADATA_IP:-metadata.google.internal}
  curl --silent --fail --max-time 10 -H 'Metadata-Flavor: Google' \
    "http://$host/computeMetadata/v1/instance/attributes/$1" || true
}

# The number of this worker, counted from 0.
worker_number() {
  local number
  number=$(metadata agent-worker-number)
  echo "${number:-0}"
}

# Whether the main that start.sh started is still there.
running() {
  [[ -e $run_folder/pid && ! -e $run_folder/exit ]] &&
    kill -0 "$(<"$run_folder/pid")" 2>/dev/null
}
