#!/usr/bin/env bash
# Installs the repository on every worker, or brings it up to date.
#
#   tpu_setup/install.sh [--dry-run] [--config=FILE]
#
# --dry-run prints the commands instead of running them.
. "$(dirname "$0")/common.sh"
parse_options "$@"
no_arguments
load_config PROJECT ZONE NAME REPO_URL REPO_REF DIRECTORY PYTHON

directory=$(quoted "$DIRECTORY")
python=$(quoted "$PYTHON")
on_every_worker "set -eu
command -v $python > /dev/null || { sudo apt-get update -q && sudo apt-get install -qy $python $python-venv; }
test -d $directory/.git || git clone --quiet $(quoted "$REPO_URL") $directory
cd $directory
git fetch --quiet --tags origin $(quoted "$REPO_REF")
git checkout --quiet --detach FETCH_HEAD
test -x .venv/bin/python || $python -m venv .venv
.venv/bin/python -m pip install --quiet --editable '.[tpu]' --constraint constraints.txt
echo \"\$(hostname): installed \$(git rev-parse --short HEAD)\""
