#!/usr/bin/env bash
# Fine-tunes a pre-trained ELECTRA-Small on CoLA, SST-2, MRPC, STS-B, RTE, CoNLL-2000 and SQuAD, scores CoNLL-2000's test
# split, and prints every median beside the published score:
#   bench/finetune_small.sh MODEL_DIR DATA RUNS [--gin.NUM_SEEDS=1 ...]
# DATA holds glue/{CoLA,SST-2,MRPC,STS-B,RTE}, conll2000/{train,test}.txt and squad/split-{train,dev}-{v1.1,v2.0}.json. A task
# whose run in RUNS is unfinished is resumed, and a finished one is skipped. PYTHON=... selects the interpreter.
set -euo pipefail
if [ $# -lt 3 ]; then
  echo "usage: bench/finetune_small.sh MODEL_DIR DATA RUNS [--gin.NAME=VALUE ...]" >&2
  exit 2
fi
model=$1 data=$2 runs=$3
shift 3
python=${PYTHON:-python}

finetune() {
  local task=$1
  shift
  echo "== $task"
  "$python" -m electra_jax finetune --gin_file=gin/runs/finetune.gin --gin.TASK="'$task'" --gin.INIT_FROM="'$model'" \
    --gin.MODEL_DIR="'$runs/$task'" --gin.LEARNING_RATE=3e-4 --gin.NUM_SEEDS=3 "$@"
}

for task in cola sst2 mrpc stsb rte; do
  finetune $task --gin.DATA_DIR="'$data/glue'" "$@"
done
finetune chunk --gin.DATA_DIR="'$data/conll2000'" "$@"
for version in 1.1 2.0; do
  finetune "squad_v${version%.*}" --gin.TRAIN_FILE="'$data/squad/split-train-v$version.json'" \
    --gin.DEV_FILE="'$data/squad/split-dev-v$version.json'" "$@"
done
"$python" -m electra_jax evaluate --gin.MODEL_DIR="'$runs/chunk'" --gin.SPLIT="'test'"
"$python" -m bench.beside_published "$runs"/*/
