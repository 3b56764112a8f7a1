#!/usr/bin/env bash
# Deletes the TPU of config.env and the request for it, without asking; the content of its disks is lost.
#
#   tpu_setup/delete.sh [--dry-run] [--config=FILE]
#
# --dry-run prints the commands instead of running them.
. "$(dirname "$0")/common.sh"
parse_options "$@"
no_arguments
load_config PROJECT ZONE NAME

delete=(gcloud compute tpus "$kind" delete "$NAME" "${place[@]}" --quiet)
# Without --force, gcloud refuses to delete a request that has been granted.
if [ "$QUEUED" = true ]; then delete+=(--force); fi

if [ "$dry_run" = true ]; then
  state
  run "${delete[@]}"
  exit
fi
found=$(state)
if [ -z "$found" ]; then
  echo "$NAME does not exist"
  exit
fi
run "${delete[@]}"
