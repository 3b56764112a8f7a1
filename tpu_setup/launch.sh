#!/usr/bin/env bash
# Runs the same `electra` command on every worker, detached. A worker on which one still runs is left alone.
#
#   tpu_setup/launch.sh [--dry-run] [--config=FILE] COMMAND [ARGUMENT]...
#   tpu_setup/launch.sh pretrain --gin_file=gin/runs/small.gin --gin.MODEL_DIR='"gs://bucket/run"' ...
#
# Each worker writes its output to DIRECTORY/logs/HOSTNAME.log and, when the run has ended, its exit code to logs/exit.
# --dry-run prints the command instead of running it.
. "$(dirname "$0")/common.sh"
parse_options "$@"
[ "${#rest[@]}" -gt 0 ] || fail "no command for the workers: give a command of electra and its arguments, such as pretrain"
load_config PROJECT ZONE NAME DIRECTORY

# The run inherits the lock, so that no second one can begin while it starts. The kernel releases it however the run ends, even
# if the machine goes down.
on_every_worker "set -eu
cd $(quoted "$DIRECTORY")
test -x .venv/bin/electra || { echo \"\$(hostname): nothing is installed here: run install.sh\" >&2; exit 1; }
mkdir -p logs
log=logs/\$(hostname).log
exec 9>> logs/lock
flock --nonblock 9 || { echo \"\$(hostname): a run is under way, see \$log\"; exit 0; }
rm -f logs/exit
nohup setsid sh -c '\"\$@\"; echo \$? > logs/exit' run .venv/bin/electra $(quoted "${rest[@]}") \\
  >> \"\$log\" 2>&1 < /dev/null &
echo \"\$(hostname): started, output in \$log\""
