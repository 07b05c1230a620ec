#!/usr/bin/env bash
# Deletes the TPU that it runs on when its lifetime is over, whatever became of
# the machine that made it. Every worker runs it at every boot, because it is
# the metadata `startup-script`. Worker 0 is the first to delete the TPU; the
# others follow, so that a worker that hangs does not keep the TPU alive.
#
# It needs gcloud, which images of TPU VMs have, the scope cloud-platform, and a
# service account that may delete TPUs (role roles/tpu.admin). If one of these
# is missing, nothing reports it; `dst-t5x launch tpu list` shows what is
# overdue.
set -euo pipefail

attribute() {
  local host=${GCE_METADATA_IP:-metadata.google.internal}
  curl --silent --fail --max-time 10 -H 'Metadata-Flavor: Google' \
    "http://$host/computeMetadata/v1/instance/attributes/$1"
}

wait_and_delete() {
  set -euo pipefail
  export PATH=$PATH:/snap/bin
  local expires name zone project kind worker
  expires=$(attribute dst-t5x-expires)
  name=$(attribute dst-t5x-name)
  zone=$(attribute dst-t5x-zone)
  project=$(attribute dst-t5x-project)
  kind=$(attribute dst-t5x-kind) # tpu-vm or queued-resources
  worker=$(attribute agent-worker-number) || worker=0
  # Short sleeps, because a long one would not notice that the clock jumps.
  while (($(date +%s) < expires + 120 * worker)); do
    sleep "${DST_T5X_LIFETIME_CHECK:-60}"
  done
  local force=()
  [[ $kind != queued-resources ]] || force=(--force)
  # Until it succeeds: then this machine is gone, too.
  until gcloud compute tpus "$kind" delete "$name" --zone="$zone" \
    --project="$project" "${force[@]}" --quiet; do
    sleep "${DST_T5X_LIFETIME_CHECK:-60}"
  done
}

# Detached, so that the boot does not wait for it. As text, because this file is
# removed when it has run.
setsid nohup bash -c \
  "$(declare -f attribute wait_and_delete); wait_and_delete" \
  </dev/null >/dev/null 2>&1 &
