#!/usr/bin/env bash
# Keeps a run going until it is done: creates the TPU of config.env, installs, launches, and after a pre-emption does so
# again; the command goes on from its newest checkpoint.
#
#   tpu_setup/watch.sh [--dry-run] [--config=FILE] VERB [ARGUMENT]...
#   tpu_setup/watch.sh pretrain --gin_file=gin/runs/small.gin --gin.MODEL_DIR='"gs://bucket/run"' ... && tpu_setup/delete.sh
#
# It may itself be stopped and started again at any time: the run does not notice. Exit codes: 0, the run is done; 2, a
# mistake that the same command would only repeat (the log is shown); 1, given up after FAILURES in a row.
# --dry-run prints the commands instead of running them.
. "$(dirname "$0")/common.sh"
parse_options "$@"
[ "${#rest[@]}" -gt 0 ] || fail "no command for the workers: give a verb of electra and its arguments, such as pretrain"
load_config PROJECT ZONE NAME ACCELERATOR_TYPE RUNTIME_VERSION REPO_URL REPO_REF DIRECTORY PYTHON WATCH_SECONDS FAILURES

# Prints `WORKER running`, `WORKER idle` (nothing was launched on its disk) or `WORKER exit CODE STEP`, STEP being the last
# one in its log; CODE is `killed` where the run ended without leaving one.
report="cd $(quoted "$DIRECTORY") 2> /dev/null && test -e logs/lock || { echo \"\$(hostname) idle\"; exit 0; }
flock --nonblock logs/lock true || { echo \"\$(hostname) running\"; exit 0; }
step=\$(grep -o '^step [0-9]*' logs/\$(hostname).log | tail -n 1)
echo \"\$(hostname) exit \$(cat logs/exit 2> /dev/null || echo killed) \${step#step }\""

# script NAME [ARGUMENT]...: another one of this folder, with the same configuration.
script() {
  local name=$1
  shift
  if [ "$dry_run" = true ]; then set -- --dry-run "$@"; fi
  "$here/$name.sh" --config="$config" "$@"
}

# say SENTENCE: with the time, unless it was the last thing said.
said=""
say() {
  [ "$1" = "$said" ] || echo "$(date '+%Y-%m-%d %H:%M:%S') $1"
  said=$1
}

# failed SENTENCE: counts, and gives up when there were too many in a row.
failures=0
failed() {
  failures=$((failures + 1))
  say "$1 ($failures of $FAILURES)"
  if [ "$failures" -ge "$FAILURES" ]; then
    say "given up: the checkpoints are where they were; when the cause is found, start the same command again"
    exit 1
  fi
}

# create: asks for the TPU; that there is none to be had just now is no failure.
create() {
  local message
  say "asking for $NAME"
  if message=$(script create 2>&1); then return; fi
  printf '%s\n' "$message" >&2
  case $message in
    *[Nn]o*capacity* | *stockout* | *STOCKOUT*) say "no capacity in $ZONE at the moment" ;;
    *) failed "$NAME could not be asked for" ;;
  esac
}

# recreate WHY: deletes the TPU with all that is on its disks, and asks for another.
recreate() {
  say "$1: deleting $NAME and asking for it again"
  if script delete; then create; else failed "$NAME could not be deleted"; fi
}

# lose WHY: counts that something could not be reached or set up; a slice that stays so is replaced.
lost=0
lose() {
  lost=$((lost + 1))
  say "$1 ($lost of $FAILURES)"
  if [ "$lost" -ge "$FAILURES" ]; then
    lost=0
    failed "$NAME does not come to work"
    recreate "nothing runs there"
  fi
}

# start: installs and launches on every worker; what runs already is left alone.
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

# look: asks the workers how the run is and does what follows from it; leaves when it has ended for good.
look() {
  local reports answered=true
  reports=$(on_every_worker "$report") || answered=false
  case $launched,$reports in
    everywhere,*" exit 2 "*)
      say "the run ended with a mistake that it would only repeat:"
      printf '%s\n' "$reports"
      on_every_worker "tail -n 20 $(quoted "$DIRECTORY")/logs/*.log" || true
      exit 2
      ;;
    # A worker that could not be started before is waited for by the others.
    partly,*" running"*) start ;;
    *" running"*)
      launched=everywhere lost=0
      say "running"
      ;;
    *)
      # Codes of a run that was not launched from here say nothing of this one.
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

# judge REPORTS: of a run that ended on every worker.
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
  echo "# What there is:"
  state
  echo "# Where there is nothing:"
  script create
  echo "# Once it is ACTIVE or READY, and whenever the run has ended before it was done:"
  script install
  script launch "${rest[@]}"
  echo "# Every $WATCH_SECONDS seconds:"
  on_every_worker "$report"
  echo "# After a pre-emption, before it is created again:"
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
    say "gcloud could not say how $NAME is"
  fi
  sleep "$WATCH_SECONDS"
done
