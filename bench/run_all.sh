#!/usr/bin/env bash
# Measures all tables of bench/RESULTS.md on this machine, in about 15 minutes on two idle cores, and writes the output
# to bench/out/*.txt. The parts that begin with text need a corpus and BERT's vocabulary:
#   bench/run_all.sh 'my-text/*.txt' my-vocab/vocab.txt
# The rows of PyTorch need the extra bench. PYTHON=... selects the interpreter.
set -uo pipefail
cd "$(dirname "$0")/.."
corpus=${1-} vocab=${2-}
python=${PYTHON:-.venv/bin/python}
out=bench/out
mkdir -p $out

measure() {
  local name=$1
  shift
  echo "== $name: python -m $*"
  { echo "\$ python -m $*"; "$python" -m "$@"; } >"$out/$name.txt" 2>&1 || echo "   failed: see $out/$name.txt"
}

if [ -n "$corpus" ]; then
  measure startup bench.startup --corpus="$corpus" --vocab_file="$vocab" --pretrain_rounds=1
  measure input bench.input_pipeline --corpus="$corpus" --vocab_file="$vocab" --rounds=5
else
  measure startup bench.startup
  measure input bench.input_pipeline --rounds=5
fi
measure pretrain_float32 bench.pretrain_step --dtype=float32
measure pretrain_bfloat16 bench.pretrain_step --dtype=bfloat16
measure finetune bench.finetune_step --steps=8
measure predict bench.predict
measure versus bench.versus --only "jax float32" "jax bfloat16" "torch eager float32 as it comes" \
  "torch eager float32 gathered" "torch eager bfloat16 gathered" "torch compiled float32 gathered" \
  "torch compiled bfloat16 gathered"
measure scaling bench.scaling --steps=3
