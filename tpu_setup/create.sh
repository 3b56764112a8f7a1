#!/usr/bin/env bash
# Requests the TPU of config.env; run again, it prints the state of the request.
#
#   tpu_setup/create.sh [--dry-run] [--config=FILE]
#
# --dry-run prints the commands instead of running them.
. "$(dirname "$0")/common.sh"
parse_options "$@"
no_arguments
load_config PROJECT ZONE NAME ACCELERATOR_TYPE RUNTIME_VERSION

create=(gcloud compute tpus "$kind" create "$NAME" "${place[@]}")
create+=(--accelerator-type="$ACCELERATOR_TYPE")
if [ "$QUEUED" = true ]; then
  create+=(--runtime-version="$RUNTIME_VERSION" --node-id="$NAME")
else
  create+=(--version="$RUNTIME_VERSION")
fi
if [ "$SPOT" = true ]; then create+=(--spot); fi

if [ "$dry_run" = true ]; then
  state
  run "${create[@]}"
  exit
fi
found=$(state)
if [ -n "$found" ]; then
  echo "$NAME exists: $found"
  exit
fi
run "${create[@]}"
