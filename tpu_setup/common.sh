# shellcheck shell=bash
# What the scripts share. Sourced, never run. Works with the bash 3.2 that macOS has.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
config=$here/config.env
dry_run=false

# One sentence on standard error, and the exit code of a user's mistake.
fail() {
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  exit 2
}

# parse_options ARGUMENT...: reads options up to the first other argument; the rest is left in the array `rest`.
parse_options() {
  local argument
  while [ $# -gt 0 ]; do
    case $1 in
      --dry-run) dry_run=true ;;
      --config=*) config=${1#--config=} ;;
      --help | -h)
        # The comment that a script begins with is its manual.
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
      -*) fail "unknown option $1: there are --dry-run, --config=FILE and --help" ;;
      *) break ;;
    esac
    shift
  done
  rest=("$@")
  # Overlooked, it would run for real what was only to be shown.
  for argument in "$@"; do
    [ "$argument" != --dry-run ] || fail "--dry-run stands after '$1': put it first"
  done
}

# no_arguments: refuses what a script has no use for.
no_arguments() {
  [ "${#rest[@]}" -eq 0 ] || fail "unknown argument ${rest[0]}: there are --dry-run, --config=FILE and --help"
}

# load_config NAME...: reads the configuration and refuses it when one of the settings is empty.
load_config() {
  [ -f "$config" ] || fail "there is no configuration $config: copy $here/config.env and fill it in"
  # shellcheck source=config.env
  . "$config"
  local name
  for name in "$@"; do
    [ -n "${!name:-}" ] || fail "$name is empty: set it in $config"
  done
  for name in SPOT QUEUED; do
    case ${!name:-} in
      true | false) ;;
      *) fail "$name is '${!name:-}' in $config: it must be true or false" ;;
    esac
  done
  place=(--project="$PROJECT" --zone="$ZONE")
  kind=tpu-vm
  if [ "$QUEUED" = true ]; then kind=queued-resources; fi
}

# quoted WORD...: the words as a shell reads them back, on one line.
quoted() {
  local word quote="'\\''" space=""
  for word in "$@"; do
    case $word in
      '' | *[!A-Za-z0-9_./:=,@%+-]*) word="'${word//\'/$quote}'" ;;
    esac
    printf '%s%s' "$space" "$word"
    space=" "
  done
}

# run COMMAND...: runs it, or prints it under --dry-run.
run() {
  if [ "$dry_run" = true ]; then
    quoted "$@"
    echo
    return
  fi
  command -v "$1" > /dev/null || fail "$1 is not on the PATH: install the Google Cloud CLI"
  "$@"
}

# state: prints the state of what create.sh makes (ACTIVE, READY, ...), nothing if there is none. A list is asked for
# rather than a description, which fails alike for what is not there and for what may not be seen.
state() {
  local field=state
  if [ "$QUEUED" = true ]; then field=state.state; fi
  run gcloud compute tpus "$kind" list "${place[@]}" --filter="name~(^|/)$NAME\$" --format="value($field)"
}

# on_every_worker COMMAND: runs a shell command on all workers at once.
on_every_worker() {
  run gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker=all --command="$1"
}
