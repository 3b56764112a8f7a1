#!/usr/bin/env bash
# Keeps a run going until it is done: creates the TPU of config.env, installs and launches, and does so again after each
# pre-emption; the command resumes from its newest checkpoint.
#
#   tpu_setup/watch.sh [--dry-run] [--config=FILE] COMMAND [ARGUMENT]...
#   tpu_setup/watch.sh pretrain --gin_file=gin/runs/small.gin --gin.MODEL_DIR='"gs://bucket/run"' ... && tpu_setup/delete.sh
#
# This script may itself be stopped and started again at any time, without effect on the run. Exit codes: 0, the run is
# done; 2, a mistake that the same command would repeat (the log is shown); 1, given up after FAILURES in a row.
# --dry-run prints the commands instead of running them.
. "$(dirname "$0")/common.sh"
parse_options "$@"
[ "${#rest[@]}" -gt 0 ] || fail "no command for the workers: give a command of electra and its arguments, such as pretrain"
load_config PROJECT ZONE NAME ACCELERATOR_TYPE RUNTIME_VERSION REPO_URL REPO_REF DIRECTORY PYTHON WATCH_SECONDS FAILURES

# Prints `WORKER running`, `WORKER idle` (nothing was launched from its disk) or `WORKER exit CODE STEP`, where STEP is the
# last one in its log, and CODE is `killed` if the run ended without leaving one.
report="cd $(quoted "$DIRECTORY") 2> /dev/null && test -e logs/lock || { echo \"\$(hostname) idle\"; exit 0; }
flock --nonblock logs/lock true || { echo \"\$(hostname) running\"; exit 0; }
step=\$(grep -o '^step [0-9]*' logs/\$(hostname).log | tail -n 1)
echo \"\$(hostname) exit \$(cat logs/exit 2> /dev/null || echo killed) \${step#step }\""

# script NAME [ARGUMENT]...: runs another script of this folder with the same configuration.
script() {
  local name=$1
  shift
  if [ "$dry_run" = true ]; then set -- --dry-run "$@"; fi
  "$here/$name.sh" --config="$config" "$@"
}

# say SENTENCE: prints it with the time, unless it was the last one printed.
said=""
say() {
  [ "$1" = "$said" ] || echo "$(date '+%Y-%m-%d %H:%M:%S') $1"
  said=$1
}

# failed SENTENCE: counts a failure, and gives up after too many in a row.
failures=0
failed() {
  failures=$((failures + 1))
  say "$1 ($failures of $FAILURES)"
  if [ "$failures" -ge "$FAILURES" ]; then
    say "given up: the checkpoints are where they were; remove the cause and start the same command again"
    exit 1
  fi
}

# create: requests the TPU; a lack of capacity is not a failure.
create() {
  local message
  say "requesting $NAME"
  if message=$(script create 2>&1); then return; fi
  printf '%s\n' "$message" >&2
  case $message in
    *[Nn]o*capacity* | *stockout* | *STOCKOUT*) say "no capacity in $ZONE at the moment" ;;
    *) failed "$NAME could not be requested" ;;
  esac
}

# recreate WHY: deletes the TPU with everything on its disks, and requests another one.
recreate() {
  say "$1: deleting $NAME and requesting it again"
  if script delete; then create; else failed "$NAME could not be deleted"; fi
}

# lose WHY: counts a worker that cannot be reached or set up; a slice that stays in that state is replaced.
lost=0
lose() {
  lost=$((lost + 1))
  say "$1 ($lost of $FAILURES)"
  if [ "$lost" -ge "$FAILURES" ]; then
    lost=0
    failed "$NAME does not start to work"
    recreate "nothing runs there"
  fi
}

# start: installs and launches on every worker; a run under way is left alone.
launched=unknown
start() {
  if script install && script launch "${rest[@]}"; then
    launched=everywhere lost=0
    say "launched"
  else
    launched=partly
    lose "not every worker could be started"
  fi
}

# look: asks the workers for the state of the run and acts on it; exits when the run has ended for good.
look() {
  local reports answered=true
  reports=$(on_every_worker "$report") || answered=false
  case $launched,$reports in
    everywhere,*" exit 2 "*)
      say "the run ended with a mistake that it would repeat:"
      printf '%s\n' "$reports"
      on_every_worker "tail -n 20 $(quoted "$DIRECTORY")/logs/*.log" || true
      exit 2
      ;;
    # The others wait for a worker that could not be started before.
    partly,*" running"*) start ;;
    *" running"*)
      launched=everywhere lost=0
      say "running"
      ;;
    *)
      # Exit codes of a run that was not launched from here say nothing about this one.
      if [ "$answered" = false ]; then
        lose "not every worker answers, and nothing runs"
      elif [ "$launched" = everywhere ] && [[ $reports != *" idle"* ]]; then
        judge "$reports"
      else
        start
      fi
      ;;
  esac
}

# judge REPORTS: acts on the exit codes of a run that has ended on every worker.
best=-1
judge() {
  local codes code step
  for step in $(printf '%s\n' "$1" | sed -n 's/.* exit [a-z0-9]* \([0-9][0-9]*\)$/\1/p'); do
    if [ "$step" -gt "$best" ]; then best=$step failures=0; fi
  done
  codes=$(printf '%s\n' "$1" | sed -n 's/.* exit \([a-z0-9]*\) .*/\1/p' | sort -u | tr '\n' ' ')
  if [ "$codes" = "0 " ]; then
    say "done"
    exit 0
  fi
  for code in $codes; do
    # 75: pre-empted, or another worker was lost.
    case $code in
      0 | 75) ;;
      *) failed "the run crashed (exit code $code; see $DIRECTORY/logs on the workers)" ;;
    esac
  done
  say "ended with exit code ${codes% }: launching again"
  start
}

if [ "$dry_run" = true ]; then
  echo "# The present state:"
  state
  echo "# If there is no TPU:"
  script create
  echo "# Once it is ACTIVE or READY, and whenever the run has ended early:"
  script install
  script launch "${rest[@]}"
  echo "# Every $WATCH_SECONDS seconds:"
  on_every_worker "$report"
  echo "# After a pre-emption, before it is requested again:"
  script delete
  exit
fi
while true; do
  if found=$(state); then
    case $found in
      "") create ;;
      ACTIVE | READY) look ;;
      SUSPENDED | PREEMPTED | TERMINATED | STOPPED) recreate "$NAME is $found" ;;
      FAILED)
        failed "the request for $NAME failed"
        recreate "$NAME is $found"
        ;;
      *) say "$NAME is $found" ;;
    esac
  else
    say "gcloud did not report the state of $NAME"
  fi
  sleep "$WATCH_SECONDS"
done
