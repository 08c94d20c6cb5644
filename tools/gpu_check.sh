#!/usr/bin/env bash
# Build, test and benchmark everything that needs a CUDA GPU, in under 8 minutes:
#     bash tools/gpu_check.sh [python]
set -euo pipefail
cd "$(dirname "$0")/.."
python="${1:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}"

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "GPU: not run (PyTorch sees no CUDA GPU on this machine)"
  exit 1
fi
"$python" -c 'import torch; print("GPU:", torch.cuda.get_device_name(), "- PyTorch", torch.__version__)'

echo "== build for this GPU only"
export TORCH_CUDA_ARCH_LIST="${TORCH_CUDA_ARCH_LIST:-$("$python" -c \
  'import torch; print("%d.%d" % torch.cuda.get_device_capability())')}"
FORCE_CUDA=1 MAX_JOBS="${MAX_JOBS:-$(nproc)}" timeout 240 "$python" setup.py build_ext --inplace

echo "== tests"
timeout 150 "$python" -m pytest -q -m "not slow" tests/ops tests/modeling/test_roi_pooler.py

echo "== benchmark"
timeout 90 "$python" tools/benchmark_roi_align.py --device cuda --repeats 5
echo "GPU: done"
