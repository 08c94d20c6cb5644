"""Compile every CUDA source and say what each kernel takes; no GPU is needed, nothing is installed.

    CUDA_HOME=/usr/local/cuda-13.0 python tools/compile_cuda.py

Warnings are errors. Exits 1 where a kernel spills registers or fewer of its blocks fit on a
multiprocessor than ``cuda_occupancy.DESIGN`` counts on, 0 with a notice where there is no nvcc.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cuda_occupancy import DESIGN, MULTIPROCESSORS, WARP, resident_blocks  # beside this file
from torch.utils import cpp_extension

CSRC = Path(__file__).resolve().parents[1] / "seg_plugins" / "ops" / "csrc"


@dataclass(frozen=True)
class Kernel:
    """What ``ptxas -v`` says of one kernel on one architecture."""

    name: str  # with its template arguments: pool_kernel<float x4, BFloat16, float>
    architecture: str
    registers: int
    spilled_bytes: int  # stores and loads
    shared_bytes: int  # static

    @property
    def blocks(self) -> int:
        """Blocks on one multiprocessor."""
        design = DESIGN[self.family]
        shared = self.shared_bytes + design.shared_bytes * (2 if self.is_double else 1)
        processor = MULTIPROCESSORS[self.architecture]
        return resident_blocks(processor, design.threads, self.registers, shared)

    @property
    def occupancy(self) -> float:
        """Its warps on one multiprocessor, of those that the multiprocessor can hold."""
        warps = self.blocks * DESIGN[self.family].threads // WARP
        return warps / MULTIPROCESSORS[self.architecture].warps

    @property
    def family(self) -> str:
        """The name without template arguments."""
        return self.name.partition("<")[0]

    @property
    def is_double(self) -> bool:
        """Sums are in float64."""
        return "double" in self.name

    def faults(self) -> list[str]:
        """What the design does not allow."""
        found = []
        if self.spilled_bytes:
            found.append(f"spills {self.spilled_bytes} bytes of registers")
        least = 1 if self.is_double else DESIGN[self.family].blocks
        if self.blocks < least:
            found.append(
                f"{self.blocks} blocks fit on a multiprocessor, the design counts on {least}: "
                f"{DESIGN[self.family].reason}"
            )
        return [f"{self.name} on sm_{self.architecture}: {fault}" for fault in found]


def find_nvcc() -> str | None:
    """The nvcc of CUDA_HOME, else of the PATH, else of a usual place."""
    roots = [os.environ.get("CUDA_HOME"), *sorted(map(str, Path("/usr/local").glob("cuda*")))]
    candidates = [str(Path(root, "bin", "nvcc")) for root in roots if root]
    return next(filter(None, map(shutil.which, [*candidates, "nvcc"])), None)


def demangle(names: list[str]) -> list[str]:
    """Kernels' names as C++ has them, without namespaces and parameters."""
    done = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    short = []
    for name in done.stdout.splitlines():
        name = re.sub(r"\(anonymous namespace\)::|\b\w+::", "", name.removeprefix("void "))
        name = re.sub(r"ArrayPack<(\w+), (\d+)>", r"\1 x\2", name)
        short.append(name.partition("(")[0])
    return short


def read_report(text: str) -> list[Kernel]:
    """The kernels in the output of ``nvcc -Xptxas -v``, by name.

    Raises:
        ValueError: A kernel is not in ``cuda_occupancy.DESIGN``.
    """
    pattern = (
        r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<arch>\d+)a?'"
        r".*?(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
        r".*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)"
    )
    found = list(re.finditer(pattern, text, re.DOTALL))
    kernels = []
    for match, name in zip(found, demangle([m["name"] for m in found]), strict=True):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        kernels.append(
            Kernel(
                name,
                match["arch"],
                int(match["registers"]),
                int(match["stores"]) + int(match["loads"]),
                int(shared[1]) if shared else 0,
            )
        )
    unknown = sorted({k.family for k in kernels} - set(DESIGN))
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: not in DESIGN of tools/cuda_occupancy.py; say there how many "
            "blocks of it should fit on a multiprocessor"
        )
    return sorted(kernels, key=lambda kernel: kernel.name)


def compile_for(nvcc: str, source: Path, architecture: str, with_host: bool) -> list[Kernel]:
    """Compile one source for one architecture, its host code only if asked.

    Raises:
        RuntimeError: nvcc has an error or a warning; it is the text.
    """
    includes = [f"-I{path}" for path in [CSRC, *cpp_extension.include_paths()]]
    with tempfile.TemporaryDirectory() as directory:
        command = [
            *(nvcc, "-c" if with_host else "-cubin", str(source), "-o", f"{directory}/object"),
            *("-std=c++20", "-O3", "-DSEG_PLUGINS_WITH_CUDA=1", "--expt-relaxed-constexpr"),
            # PyTorch's own headers call host functions from device ones.
            *("-Xcompiler", "-fPIC", "-diag-suppress", "20011,20014", "-Werror", "all-warnings"),
            *(f"-gencode=arch=compute_{architecture},code=sm_{architecture}", "-Xptxas", "-v"),
            *includes,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{source.name} for sm_{architecture}:\n{done.stdout}{done.stderr}")
    return read_report(done.stdout + done.stderr)


def print_table(kernels: list[Kernel]) -> None:
    """A line per kernel, with the numbers of each architecture beside each other."""
    architectures = sorted({k.architecture for k in kernels}, key=int)
    print("registers of a thread, bytes spilled, blocks on a multiprocessor, occupancy; with the")
    print("shared memory, static and asked for at the launch, of a block")
    heads = [f"{f'sm_{a}':>20}" for a in architectures]
    print(f"{'kernel':46}{'shared':>9}{''.join(heads)}")
    for name in sorted({k.name for k in kernels}):
        row = {k.architecture: k for k in kernels if k.name == name}
        design, any_of = DESIGN[name.partition("<")[0]], next(iter(row.values()))
        shared = any_of.shared_bytes + design.shared_bytes * (2 if any_of.is_double else 1)
        cells = [f"{k.registers:7d}{k.spilled_bytes:4d}{k.blocks:3d}{k.occupancy:6.0%}"
                 for k in map(row.__getitem__, architectures)]  # fmt: skip
        print(f"{name:46}{shared:9d}{''.join(cells)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--arch", nargs="+", default=list(MULTIPROCESSORS), choices=list(MULTIPROCESSORS),
        help="compute capabilities (default: all of them)",
    )  # fmt: skip
    args = parser.parse_args()
    nvcc = find_nvcc()
    if nvcc is None:
        print("CUDA sources: not compiled, no nvcc found")
        return 0
    faults = []
    for source in sorted(CSRC.glob("cuda/*.cu")):
        start = time.perf_counter()
        # The host code is the same for all of them.
        jobs = [(nvcc, source, arch, i == 0) for i, arch in enumerate(dict.fromkeys(args.arch))]
        try:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                found = list(pool.map(lambda job: compile_for(*job), jobs))
        except (RuntimeError, ValueError) as error:
            print(error)
            return 1
        kernels = [kernel for of_one in found for kernel in of_one]
        seconds = time.perf_counter() - start
        print(f"{source.name}: compiled for sm_{', sm_'.join(args.arch)} in {seconds:.0f} s")
        print_table(kernels)
        faults += [fault for kernel in kernels for fault in kernel.faults()]
    print("\n".join(faults) if faults else "no spills; every kernel is as occupied as designed")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
