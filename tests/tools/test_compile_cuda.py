"""What ptxas says of a kernel is read, and held against what the design counts on."""

from __future__ import annotations

import importlib
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TOOLS = Path(__file__).parents[2] / "tools"
# What nvcc 13.0 prints for two kernels.
SCATTER = (
    "_ZN11seg_plugins9roi_align52_GLOBAL__N__26e1fc1d_19_roi_align_kernel_cu_5ff9eb3b14scatter_"
    "kernelINS0_9ArrayPackIfLi8EEEN3c108BFloat16EfEEvNS0_13BlockSettingsIT1_EEPKT0_PKS8_NS0_4Maps"
    "IS8_EE"
)
BUCKET = (
    "_ZN11seg_plugins9roi_align52_GLOBAL__N__26e1fc1d_19_roi_align_kernel_cu_5ff9eb3b13bucket_"
    "kernelIdEEvNS0_13BlockSettingsIT_EEPKS4_NS0_7BucketsE"
)
REPORT = """ptxas info    : 106 bytes gmem, 256 bytes cmem[4]
ptxas info    : Compiling entry function '{name}' for 'sm_{arch}'
ptxas info    : Function properties for {name}
    272 bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads
ptxas info    : Used {registers} registers, used 1 barriers, 264 bytes cumulative stack size
ptxas info    : Compile time = 3290.124 ms
"""


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("compile_cuda")


def report(name=SCATTER, arch="90", stores=0, loads=0, registers=80):
    return REPORT.format(name=name, arch=arch, stores=stores, loads=loads, registers=registers)


def test_a_report_is_read_and_a_kernel_as_designed_has_no_faults(tool):
    bucket, scatter = tool.read_report(report() + report(BUCKET, registers=57))
    assert scatter.name == "scatter_kernel<float x8, BFloat16, float>"
    assert bucket.name == "bucket_kernel<double>"
    assert (bucket.registers, scatter.registers) == (57, 80)
    # 80 registers: 65536 / (80 * 32) is 25 warps, 24 in four parts: three blocks of eight.
    assert (scatter.blocks, scatter.occupancy) == (3, 24 / 64)
    assert (bucket.blocks, bucket.occupancy) == (1, 32 / 64)
    assert not scatter.faults() + bucket.faults()


def test_a_spill_and_too_few_blocks_are_faults(tool, capsys):
    (spilling,) = tool.read_report(report(stores=8, loads=12))
    assert spilling.faults() == [
        "scatter_kernel<float x8, BFloat16, float> on sm_90: spills 20 bytes of registers"
    ]
    (wide,) = tool.read_report(report(registers=81))
    assert wide.blocks == 2
    assert "2 blocks fit on a multiprocessor, the design counts on 3" in wide.faults()[0]
    tool.print_table([wide])
    assert capsys.readouterr().out.splitlines()[-1].split()[-4:] == ["81", "0", "2", "25%"]


def test_a_kernel_without_a_design_is_an_error(tool):
    with pytest.raises(ValueError, match=r"other_kernel: not in DESIGN of tools/cuda_occ"):
        tool.read_report(report("_Z12other_kernelPi"))


def test_without_nvcc_it_says_so(tool, monkeypatch, capsys):
    monkeypatch.setattr(tool, "find_nvcc", lambda: None)
    monkeypatch.setattr(sys, "argv", ["compile_cuda.py"])
    assert tool.main() == 0
    assert capsys.readouterr().out == "CUDA sources: not compiled, no nvcc found\n"


def test_a_warning_of_the_compiler_fails_with_its_text(tool, monkeypatch, capsys, tmp_path):
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'error #177-D: variable x was declared' >&2\nexit 2\n")
    nvcc.chmod(0o755)
    monkeypatch.setattr(tool, "find_nvcc", lambda: str(nvcc))
    monkeypatch.setattr(sys, "argv", ["compile_cuda.py"])
    assert tool.main() == 1
    assert "roi_align_kernel.cu for sm_80:\nerror #177-D" in capsys.readouterr().out


ORACLE = """
#include <cuda_occupancy.h>
#include <cstdio>
int main() {
  int major, minor, threads, registers;
  size_t sm_shared, shared;
  int sm_threads;
  while (std::scanf("%d %d %d %zu %d %d %zu", &major, &minor, &sm_threads, &sm_shared, &threads,
                    &registers, &shared) == 7) {
    cudaOccDeviceProp device;
    device.computeMajor = major;
    device.computeMinor = minor;
    device.maxThreadsPerBlock = 1024;
    device.maxThreadsPerMultiprocessor = sm_threads;
    device.regsPerBlock = device.regsPerMultiprocessor = 65536;
    device.warpSize = 32;
    device.sharedMemPerBlock = 48 * 1024;
    device.sharedMemPerMultiprocessor = sm_shared;
    device.sharedMemPerBlockOptin = sm_shared - 1024;
    device.reservedSharedMemPerBlock = 1024;
    device.numSms = 1;
    cudaOccFuncAttributes kernel;
    kernel.maxThreadsPerBlock = 1024;
    kernel.numRegs = registers;
    kernel.sharedSizeBytes = 0;
    kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    kernel.maxDynamicSharedSizeBytes = sm_shared - 1024;
    kernel.numBlockBarriers = 1;
    cudaOccDeviceState state;
    cudaOccResult result;
    const auto error = cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state,
                                                               threads, shared);
    std::printf("%d\\n", error ? -int(error) : result.activeBlocksPerMultiprocessor);
  }
}
"""


def test_blocks_are_those_of_nvidias_calculator(tool, tmp_path):
    # A toolkit's, or that of the CUDA packages that PyTorch's wheel brings.
    folders = [Path(os.environ.get("CUDA_HOME", "/none"), "include")]
    folders += Path("/usr/local").glob("cuda*/include")
    folders += Path(torch.__file__).parents[1].glob("nvidia/cu*/include")
    folder = next((f for f in folders if (f / "cuda_occupancy.h").exists()), None)
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if folder is None or compiler is None:
        pytest.skip("no cuda_occupancy.h or no C++ compiler")
    (tmp_path / "oracle.cpp").write_text(ORACLE)
    program = tmp_path / "oracle"
    subprocess.run([compiler, f"-I{folder}", tmp_path / "oracle.cpp", "-o", program], check=True)
    cases = list(
        itertools.product(
            tool.MULTIPROCESSORS, (32, 96, 256, 1024), (16, 33, 64, 80, 81, 128, 255),
            (0, 1000, 8_500, 33_000, 90_000),
        )
    )  # fmt: skip
    lines, ours = [], []
    for arch, threads, registers, shared in cases:
        processor = tool.MULTIPROCESSORS[arch]
        sizes = (processor.warps * 32, processor.shared_bytes, threads, registers, shared)
        lines.append(" ".join(map(str, (int(arch) // 10, int(arch) % 10, *sizes))))
        ours.append(tool.resident_blocks(processor, threads, registers, shared))
    done = subprocess.run(
        [program], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    assert list(map(int, done.stdout.split())) == ours
    assert 0 in ours
    assert max(ours) == 32
