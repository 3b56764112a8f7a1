# shellcheck shell=bash
# Functions that the scripts share. Sourced, never run. Works with macOS's bash 3.2.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
config=$here/config.env
dry_run=false

# fail SENTENCE: prints it on standard error, and exits with the code of a user's mistake.
fail() {
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  exit 2
}

# parse_options ARGUMENT...: reads options up to the first other argument, and leaves the rest in the array `rest`.
parse_options() {
  local argument
  while [ $# -gt 0 ]; do
    case $1 in
      --dry-run) dry_run=true ;;
      --config=*) config=${1#--config=} ;;
      --help | -h)
        # The comment at the top of each script is its manual.
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
      -*) fail "unknown option $1: there are --dry-run, --config=FILE and --help" ;;
      *) break ;;
    esac
    shift
  done
  rest=("$@")
  # Overlooking it would really run what was only to be shown.
  for argument in "$@"; do
    [ "$argument" != --dry-run ] || fail "--dry-run comes after '$1': put it first"
  done
}

# no_arguments: refuses arguments, for a script that takes none.
no_arguments() {
  [ "${#rest[@]}" -eq 0 ] || fail "unknown argument ${rest[0]}: there are --dry-run, --config=FILE and --help"
}

# load_config NAME...: reads the configuration, and refuses it if one of these settings is empty.
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

# quoted WORD...: prints the words on one line, quoted for a shell.
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

# state: prints the state of the TPU or of the request for it (ACTIVE, READY, ...), nothing if there is none. It lists
# instead of describing, because a description fails in the same way if something is missing and if access is denied.
state() {
  local field=state
  if [ "$QUEUED" = true ]; then field=state.state; fi
  run gcloud compute tpus "$kind" list "${place[@]}" --filter="name~(^|/)$NAME\$" --format="value($field)"
}

# on_every_worker COMMAND: runs a shell command on all workers at once.
on_every_worker() {
  run gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker=all --command="$1"
}
