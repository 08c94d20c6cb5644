"""The CUDA form of RoIAlign with a host thread per CUDA thread, under the compiler's sanitizers.

ThreadSanitizer knows which accesses a barrier orders, whatever order they happened in: what it
calls a race is one on a GPU too, and what races between threads or blocks here it finds. That it
would is shown on copies of the programs, each with one barrier left out or one race planted.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from seg_plugins.ops import roi_align

import numpy as np
import pytest
import torch
from torch import Tensor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="uses GCC's sanitizers"),
]
CSRC = Path(__file__).resolve().parents[2] / "seg_plugins" / "ops" / "csrc"
SOURCE = Path(__file__).with_name("roi_align_threads.cpp")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
NAN, INF = float("nan"), float("inf")
SCALES = [1 / 2, 1 / 4, 1 / 8, 1 / 16]
PYRAMID = [(5, 7), (2, 5), (1, 3), (1, 1)]
BINS = (2, 3)
BOXES = [
    [0, 1.0, 2.0, 9.0, 8.0],
    [1, 2.0, 1.0, 16.0, 9.0],  # two RoIs on the same pixels
    [1, 2.5, 1.5, 15.0, 9.5],
    [0, -5.0, -9.0, 30.0, 31.0],  # partly off the map
    [0, 500.0, 500.0, 510.0, 506.0],  # wholly off the map, on the finest level
    [1, 500.0, 500.0, 700.0, 700.0],  # and on the coarsest
    [0, 12.0, 9.0, 2.0, 1.0],  # reversed
    [1, 12.0, 1.0, 2.0, 9.0],  # reversed along x: negative area
    [0, 7.0, 7.0, 7.0, 7.0],  # empty
    [1, NAN, 0.0, 3.0, 4.0],
    [1, 0.0, 0.0, INF, 4.0],
    [0, -1e6, -1e6, 1e6, 1e6],  # huge
]
# Barriers of each program, in the order of roi_align_block.h: True where one is needed. Those at
# the end of a kernel are not; nor is the first of gather_block, before which only registers are
# written, nor its fifth: the next RoI's dense weights are none of what the sums read.
BARRIERS = {
    "build_bins": [True, True, True],
    "build_pixels": [True, True, True, True],
    "pool_block": [False],
    "pool_maximum_block": [False],
    "scatter_block": [False],
    "scatter_maximum_block": [False],
    "bucket_block": [True, True, True, False],
    "gather_block": [False, True, True, True, False, True, False],
    "gather_maximum_block": [False],
}


@dataclass
class Case:
    """One problem: what the program reads, and what the reference makes of it."""

    dtype: torch.dtype = torch.float32
    channels: int = 4
    channels_last: bool = True
    reduce: str = "avg"
    sizes: tuple[tuple[int, int], ...] = tuple(PYRAMID)
    boxes: tuple[list[float], ...] = tuple(BOXES)
    sampling_ratio: int = 0
    aligned: bool = True
    threads: int = 16

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.channels)
        self.box_tensor = torch.tensor(self.boxes).reshape(-1, 5)
        self.features = [
            torch.randn(2, self.channels, *size, generator=generator).to(self.dtype)
            for size in self.sizes
        ]
        shape = (len(self.boxes), self.channels, *BINS)
        self.grad = torch.randn(shape, generator=generator).to(self.dtype)

    def encode(self) -> bytes:
        """The case as roi_align_threads.cpp reads it."""
        lanes = 16 // self.dtype.itemsize
        if not self.channels_last or self.channels % lanes or self.dtype == torch.bfloat16:
            lanes = 1
        levels = len(self.sizes)
        ints = [
            *(DTYPES.index(self.dtype), lanes, self.reduce == "max", self.threads),
            *(*BINS, self.sampling_ratio, levels, self.aligned, self.channels_last),
            *(2, self.channels, len(self.boxes), 2, 1),
            *itertools.chain.from_iterable([*self.sizes, *[(0, 0)] * (8 - levels)]),
        ]
        doubles = [10.0, *SCALES[:levels], *[0.0] * (8 - levels)]
        tensors = [self.box_tensor, *map(self.laid_out, [*self.features, self.grad])]
        return b"".join(
            [
                np.array(ints, np.int32).tobytes(),
                np.array(doubles).tobytes(),
                *(t.view(torch.uint8).numpy().tobytes() for t in tensors),
            ]
        )

    def laid_out(self, tensor: Tensor) -> Tensor:
        """The values of a (N, C, H, W) tensor in the order of their memory."""
        return (tensor.permute(0, 2, 3, 1) if self.channels_last else tensor).flatten()

    def check(self, results: memoryview) -> int:
        """Compare with the plain PyTorch form in float32; the number of bytes that were read."""
        plain = [f.float().requires_grad_() for f in self.features]
        expected = roi_align(
            plain, self.box_tensor, BINS, SCALES[: len(plain)], self.sampling_ratio, self.aligned,
            self.reduce, canonical_box_size=10, canonical_level=2, backend="reference",
        )  # fmt: skip
        gradients = torch.autograd.grad(expected, plain, self.grad.float())
        # A value is rounded once more where it is stored in a narrower type.
        step = torch.finfo(self.dtype).eps
        stored = {"rtol": max(step, 1e-4), "atol": max(step, 2e-5)}
        summed = {"rtol": 1e-4, "atol": 2e-5}
        maximum = self.reduce == "max"
        wanted = [(expected.detach(), self.dtype, stored)]
        if maximum:
            wanted.append((torch.empty_like(expected), torch.int32, {}))
        wanted += [(g, torch.float32, summed) for g in gradients]
        in_order = (torch.float32, summed) if maximum else (self.dtype, stored)
        wanted += [(g, *in_order) for g in gradients]
        offset = 0
        for tensor, dtype, tolerance in wanted:
            size = tensor.numel() * dtype.itemsize
            if tolerance and size:
                found = torch.frombuffer(results[offset : offset + size], dtype=dtype)
                torch.testing.assert_close(
                    found.float(), self.laid_out(tensor), **tolerance, msg=lambda m: f"{self}: {m}"
                )
            offset += size
        return offset


def awkward_cases() -> list[Case]:
    """Every program, dtype and layout on the pyramid, on 1x1 maps and without RoIs."""
    kinds = [
        (torch.float32, 8, True),  # packs of four channels
        (torch.float32, 3, True),
        (torch.float32, 1, False),
        (torch.float16, 8, True),  # packs of eight
        (torch.bfloat16, 5, False),
    ]
    cases = []
    for (dtype, channels, last), reduce in itertools.product(kinds, ("avg", "max")):
        kind = {"dtype": dtype, "channels": channels, "channels_last": last, "reduce": reduce}
        cases += [
            Case(**kind, aligned=channels != 3),
            Case(**kind, sizes=((1, 1),), sampling_ratio=2, threads=7),
            Case(**kind, boxes=()),
        ]
    # As many threads as the kernels have, and more packs of channels than a tile takes at once.
    cases.append(Case(channels=260, sizes=((2, 2),), boxes=tuple(BOXES[:2]), threads=256))
    return cases


def compile_program(target: Path, sanitizers: str, headers: Path = CSRC) -> Path:
    """Build roi_align_threads.cpp against the block programs in ``headers``.

    Optimized for ThreadSanitizer, whose run is the longer part; for the others the build is.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    level = "-O1" if sanitizers == "thread" else "-O0"
    includes = [headers, CSRC, Path(torch.__file__).with_name("include")]
    subprocess.run(
        [compiler, "-std=c++20", level, "-g1", "-Wall", "-Werror", f"-fsanitize={sanitizers}",
         "-fno-sanitize-recover=all", *(f"-I{path}" for path in includes),
         str(SOURCE), "-o", str(target)],
        check=True,
    )  # fmt: skip
    return target


def run_program(program: Path, cases: Path, *fault: str) -> subprocess.CompletedProcess[str]:
    """Run the cases into results.bin beside them; a sanitizer's first finding ends the run."""
    return subprocess.run(
        [program, cases, cases.with_name("results.bin"), *fault],
        env={**os.environ, "TSAN_OPTIONS": "halt_on_error=1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("sanitizers", ["thread", "address,undefined,float-cast-overflow"])
def test_a_thread_per_cuda_thread_gives_the_reference(tmp_path, sanitizers):
    program = compile_program(tmp_path / "program", sanitizers)
    cases = awkward_cases()
    (tmp_path / "cases.bin").write_bytes(b"".join(case.encode() for case in cases))
    done = run_program(program, tmp_path / "cases.bin")
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    results = memoryview(bytearray((tmp_path / "results.bin").read_bytes()))
    for case in cases:
        results = results[case.check(results) :]
    assert not results


def test_every_needed_barrier_and_a_planted_race_are_found(tmp_path):
    """Take the barriers away one by one, from a copy that numbers them."""
    text = (CSRC / "roi_align_block.h").read_text()
    found: dict[str, int] = {}
    for part in re.split(r"SEG_HD void ", text)[1:]:
        if part.count("block.each("):
            found[part[: part.index("(")]] = part.count("block.each(")
    assert found == {name: len(needed) for name, needed in BARRIERS.items()}, (
        "a barrier came or went: bring BARRIERS up to date"
    )
    numbers = itertools.count()
    text = re.sub(r"block\.each\(", lambda _: f"block.at({next(numbers)}).each(", text)
    alone = "if (thread == 0) sum_starts<A>(buckets.start, count)"
    assert text.count(alone) == 1
    text = text.replace(alone, alone.replace("== 0", "<= block.planted()"))
    (tmp_path / "roi_align_block.h").write_text(text)
    program = compile_program(tmp_path / "program", "thread", headers=tmp_path)

    # More RoIs than a tile takes at once, of which it touches the first three.
    off = [[0, 500.0, 500.0, 502.0, 502.0]] * 297
    case = Case(sizes=((4, 8),), boxes=(*[[0, 1.0, 2.0, 9.0, 7.0]] * 3, *off), threads=4)
    cases = tmp_path / "cases.bin"
    cases.write_bytes(case.encode())
    clean = run_program(program, cases)
    assert clean.returncode == 0, clean.stderr[-4000:]

    names = [f"{name} {i}" for name, sites in BARRIERS.items() for i in range(len(sites))]
    needed = [flag for sites in BARRIERS.values() for flag in sites]
    faults = [str(i) for i, flag in enumerate(needed) if flag]
    unseen = []
    for fault in [*faults, "plain add", "two writers"]:
        # On a busy machine one order of the threads may hide what another shows.
        runs = (run_program(program, cases, fault) for _ in range(5))
        if not any(done.returncode == 66 and "data race" in done.stderr for done in runs):
            unseen.append(names[int(fault)] if fault.isdigit() else fault)
    assert not unseen
