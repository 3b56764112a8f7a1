#!/usr/bin/env bash
# Everything that docs/one_gpu.md measures on a machine with one GPU, in one command, in the folder that was carried:
#   bench/one_gpu.sh OUT TRAIN_STEPS [MODEL]
# The folder holds bench/, cache/, vocab.txt and wheels of what the machine lacks. MODEL is small (the published recipe) or
# another file of gin/models/. Training starts first, because its program takes a minute to compile, and is paused
# while steps are timed. OUT gets parity.json, steps.json, the run directory and its weights. PYTHON=... selects the
# interpreter; SHRINK=1 makes all of it small, to rehearse on a CPU.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: bench/one_gpu.sh OUT TRAIN_STEPS [MODEL]" >&2
  exit 2
fi
out=$1 steps=$2 model=${3:-small}
python=${PYTHON:-python3}
peak=${PEAK_TFLOPS:-989} # of an H100 or H200 in bfloat16
mkdir -p "$out"
if compgen -G "*.whl" >/dev/null; then
  "$python" -m pip install --quiet --no-index --no-deps --upgrade --target site ./*.whl
  export PYTHONPATH=$PWD/site
fi
export PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false

recipe=(--gin.DTYPE='"bfloat16"' --gin.PRNG='"rbg"' --gin.STEPS_PER_DISPATCH=50 --gin.LOG_EVERY=500
  --gin.EVALUATE_EVERY=5000 --gin.SAVE_EVERY=10000 --gin.KEEP=1 --gin.WARMUP_STEPS=2000)
parity=(--model="$model") timed=(--only small base modern_small modern_base)
if [ -n "${SHRINK:-}" ]; then
  recipe=(--gin.BATCH_SIZE=4 --gin.LOG_EVERY=5 --gin.EVALUATION_EXAMPLES=8 --gin.WARMUP_STEPS=2)
  parity+=(--batch_size=2 --sequence_length=32)
  timed=(--only "$model" --shrink)
fi

"$python" -m electra_jax pretrain --gin_file="gin/models/$model.gin" --gin_file=gin/runs/pretrain.gin \
  --gin.MODEL_DIR="'$out/run'" --gin.CORPUS="'cache'" --gin.VOCAB_FILE="'vocab.txt'" --gin.VOCAB_SIZE="$(wc -l <vocab.txt)" \
  --gin.TRAIN_STEPS="$steps" "${recipe[@]}" >"$out/train.log" 2>&1 &
training=$!
# The best of many algorithms for each product is searched for at compilation; parity does not need it.
XLA_FLAGS=--xla_gpu_autotune_level=0 "$python" -m bench.device_parity "${parity[@]}" --output="$out/parity.json"
"$python" -m bench.device_steps --peak_tflops="$peak" "${timed[@]}" --output="$out/steps.json" >"$out/steps.log" 2>&1 &
timing=$!
while kill -0 $timing 2>/dev/null && ! grep -q ^compiled "$out/steps.log"; do sleep 0.2; done
kill -STOP $training 2>/dev/null || true
wait $timing || echo "bench.device_steps failed: see $out/steps.log"
cat "$out/steps.log"
kill -CONT $training 2>/dev/null || true
wait $training || { tail -3 "$out/train.log" && exit 1; }
tail -3 "$out/train.log"
"$python" -m electra_jax export "$out/run" "$out/weights" --format transformers
