#!/usr/bin/env bash
# Deletes the TPU that it runs on when its lifetime is over, whatever became of
# the machine that made it. Cloud TPU runs it at every boot, as the metadata
# `startup-script`; every worker does it, worker 0 first, so that one that hangs
# does not keep the TPU alive.
#
# It needs gcloud, which images of TPU VMs have, the scope cloud-platform, and a
# service account that may delete TPUs (role roles/tpu.admin). Nothing else
# reports it if that is missing: `dst-t5x launch tpu list` shows what is overdue.
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
  # In short sleeps: the clock may jump, and a long sleep would not notice.
  while (($(date +%s) < expires + 120 * worker)); do
    sleep "${DST_T5X_LIFETIME_CHECK:-60}"
  done
  local force=()
  [[ $kind != queued-resources ]] || force=(--force)
  # Until it works: this machine goes away with the TPU.
  until gcloud compute tpus "$kind" delete "$name" --zone="$zone" \
    --project="$project" "${force[@]}" --quiet; do
    sleep "${DST_T5X_LIFETIME_CHECK:-60}"
  done
}

# Detached, so that the boot does not wait for it; as text, because this file is
# removed once it has run.
setsid nohup bash -c \
  "$(declare -f attribute wait_and_delete); wait_and_delete" \
  </dev/null >/dev/null 2>&1 &
