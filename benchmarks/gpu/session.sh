#!/usr/bin/env bash
# One session on a machine with a GPU: the tests of the layers there, benchmarks/gpu/measure.py, then the paper's recipe
# in a slice of what time is left. Call it again to go on.
#
#   benchmarks/gpu/session.sh [--out=gpu_results] [--minutes=10] [--parts=tests,bench,train] [--dataset=cifar10.pack]
#                             [--work=runs/gpu] [further flags of deepnmf_jax/experiments/paper.py]
#
# PYTHON names the interpreter (python3 if not). --out gets what is worth keeping; --work holds the runs, compiled
# programs and measurements so far. On another machine, put runs.tar of an earlier --out beside this repository's
# README.md, and the runs go on from it.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

out=gpu_results minutes=10 parts=tests,bench,train dataset=cifar10.pack work=runs/gpu
train=()
for argument in "$@"; do
  case $argument in
    --out=*) out=${argument#*=} ;;
    --minutes=*) minutes=${argument#*=} ;;
    --parts=*) parts=${argument#*=} ;;
    --dataset=*) dataset=${argument#*=} ;;
    --work=*) work=${argument#*=} ;;
    *) train+=("$argument") ;;
  esac
done
case $minutes in '' | *[!0-9]*) echo "--minutes=$minutes must be a whole number" >&2; exit 2 ;; esac
python=${PYTHON:-python3}
# The last seconds are for copying.
end=$((SECONDS + 60 * minutes - 15))
mkdir -p "$out" "$work" || exit 1
export PYTHONUNBUFFERED=1

wanted() { case ",$parts," in *",$1,"*) true ;; *) false ;; esac; }
# Minutes until the end, with two decimals, less so many seconds.
left() { local s=$((end - SECONDS - $1)); [ "$s" -gt 0 ] || s=0; printf '%d.%02d' $((s / 60)) $((s % 60 * 100 / 60)); }

session() {
  local failed=0
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no nvidia-smi"
  "$python" -c 'import jax; print("jax", jax.__version__, jax.devices())' || return 1
  if wanted tests; then
    if "$python" -c 'import hypothesis, pytest' 2>/dev/null; then
      timeout 100 "$python" -m pytest -q -p no:cacheprovider -m "not slow" -k "kernel or inference or gradient" tests/core
      echo "tests of the layers: exit status $?"
    else
      echo "tests of the layers: pytest or hypothesis is not installed"
    fi
  fi
  if wanted bench; then
    # Half of what is left, if training follows. A program that is being compiled when the time is over is finished.
    local share=1
    if wanted train && [ -e "$dataset" ]; then share=2; fi
    if [ ! -e "$out/gpu.json" ] && [ -e "$work/gpu.json" ]; then cp "$work/gpu.json" "$out/"; fi
    "$python" -m benchmarks.gpu.measure --out="$out" --cache="$work/compiled" \
      --minutes="$("$python" -c "print($(left 60) / $share)")" || failed=1
    cp "$out/gpu.json" "$work/"
  fi
  if wanted train; then
    if [ ! -e "$dataset" ]; then
      echo "no file $dataset: make pack DATASET=cifar10 writes it; nothing is trained"
      return 1
    fi
    if [ ! -e "$out/runs.tar" ] && [ -e runs.tar ]; then cp runs.tar "$out/runs.tar"; fi
    "$python" -m deepnmf_jax.experiments.paper --dataset="$dataset" --runs="$work" --archive="$out/runs.tar" \
      --minutes="$(left 0)" ${train[@]+"${train[@]}"} || failed=1
  fi
  return "$failed"
}

session 2>&1 | tee "$out/session.log"
exit "${PIPESTATUS[0]}"
