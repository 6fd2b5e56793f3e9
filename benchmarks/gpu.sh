#!/usr/bin/env bash
# All that is to be measured on an NVIDIA GPU, in about ten minutes: steps of training beside PyTorch's (AMP, both memory
# formats, torch.compile) in float32, TF32 and float16, with and without CUDA graphs, and the tests marked gpu.
#
#     bash benchmarks/gpu.sh [FOLDER for the output, build/gpu]      with PYTHON=… another Python
#
# Needs onnxruntime-gpu, CUDA, cuDNN and PyTorch in that Python. What fails is told, and the rest goes on.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-build/gpu}
python=${PYTHON:-python}
mkdir -p "$out"

measure() {
  local name=$1
  shift
  echo "== $name: $*"
  timeout 120 "$python" benchmarks/train_step.py "$@" --device cuda --repetitions 5 --json 2>&1 | tee "$out/$name.log" | tail -n 3
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader | tee "$out/device.txt"
"$python" -c 'import onnxruntime; print("onnxruntime", onnxruntime.__version__)' | tee -a "$out/device.txt"
for precision in "" "--tf32" "--precision=float16"; do
  for graphs in "" "--cuda-graphs"; do
    label="${precision:---float32}$graphs"
    measure "resnet50$label" resnet50_finetune --batch-size 64 $precision $graphs
    measure "resnet20$label" resnet20_finetune --batch-size 128 $precision $graphs
  done
done
timeout 240 "$python" -m pytest -q -m gpu tests 2>&1 | tee "$out/tests.log" | tail -n 15
timeout 60 "$python" benchmarks/weight_gradient.py 2>&1 | tee "$out/weight_gradient.log" | tail -n 30
