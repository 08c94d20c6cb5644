#!/usr/bin/env bash
# Build, test and measure everything that needs a CUDA GPU: see tools/gpu_check.py --help.
root="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-$([ -x "$root/.venv/bin/python" ] && echo "$root/.venv/bin/python" || echo python3)}"
exec "$python" "$root/tools/gpu_check.py" "$@"
