"""Compile every CUDA source, to see that it compiles; nothing is installed and no GPU is needed.

    CUDA_HOME=/usr/local/cuda-13.0 python tools/compile_cuda.py

Exits 0 with a notice where there is no nvcc.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from torch.utils import cpp_extension

CSRC = Path(__file__).resolve().parents[1] / "seg_plugins" / "ops" / "csrc"


def find_nvcc() -> str | None:
    """The nvcc of CUDA_HOME, else of the PATH, else of a usual place."""
    roots = [os.environ.get("CUDA_HOME"), *sorted(map(str, Path("/usr/local").glob("cuda*")))]
    candidates = [str(Path(root, "bin", "nvcc")) for root in roots if root]
    return next(filter(None, map(shutil.which, [*candidates, "nvcc"])), None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", nargs="+", default=["80", "90"], help="compute capabilities")
    args = parser.parse_args()
    nvcc = find_nvcc()
    if nvcc is None:
        print("CUDA sources: not compiled, no nvcc found")
        return 0
    includes = [f"-I{path}" for path in [CSRC, *cpp_extension.include_paths()]]
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in args.arch]
    for source in sorted(CSRC.glob("cuda/*.cu")):
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as directory:
            command = [
                *(nvcc, "-c", str(source), "-o", f"{directory}/object.o", "-std=c++20", "-O3"),
                *("-DSEG_PLUGINS_WITH_CUDA=1", "--expt-relaxed-constexpr", "-Xcompiler", "-fPIC"),
                *("-diag-suppress", "20011,20014", *targets, *includes, "--threads", "2"),
            ]
            subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
        print(f"{source.name}: compiled for sm_{', sm_'.join(args.arch)} in {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
