"""The CUDA form of RoIAlign, run on the host thread by thread, against the reference."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from seg_plugins.ops import roi_align

import pytest
import torch

CSRC = Path(__file__).resolve().parents[2] / "seg_plugins" / "ops" / "csrc"
SOURCE = Path(__file__).with_name("roi_align_emulator.cpp")
SCALES = [1 / 4, 1 / 8]
SIZES = [(24, 31), (12, 16)]
NAN, INF = float("nan"), float("inf")
BOXES = [
    [0, 3.0, 5.0, 40.0, 61.0],
    [1, 20.5, 10.25, 110.0, 90.0],
    [1, -30.0, -20.0, 25.0, 31.0],  # partly off the map
    [0, 500.0, 500.0, 600.0, 600.0],  # wholly off the map
    [0, 60.0, 50.0, 20.0, 10.0],  # reversed
    [1, 60.0, 10.0, 20.0, 50.0],  # reversed along x: negative area
    [0, 7.0, 7.0, 7.0, 7.0],  # empty
    [1, NAN, 0.0, 3.0, 4.0],
    [1, 0.0, 0.0, INF, 4.0],
    [0, -1e6, -1e6, 1e6, 1e6],  # huge
    [0, 0.0, 0.0, 124.0, 96.0],
    [1, 1.0, 2.0, 17.0, 9.0],
    [0, -2_399_930.0, -1_439_940.0, 70.0, 60.0],  # billions of points in a bin
]


@pytest.fixture(scope="module")
def emulator():
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    headers = [SOURCE.with_name("roi_align_launches.h"), *sorted(CSRC.glob("roi_align*.h"))]
    sources = [SOURCE, *headers]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"seg_plugins_roi_align_emulator_{digest}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory() as directory:
            built = Path(directory) / library.name
            flags = ["-std=c++17", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", f"-I{CSRC}"]
            subprocess.run([compiler, *flags, str(SOURCE), "-o", str(built)], check=True)
            shutil.move(built, library)
    return ctypes.CDLL(str(library))


class Case:
    """One problem, its reference result, and the emulator's calls on it."""

    def __init__(self, library, *, dtype, channels, channels_last, sampling_ratio, aligned, reduce):
        generator = torch.Generator().manual_seed(1)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.features = [
            torch.randn(2, channels, *size, generator=generator, dtype=dtype)
            .contiguous(memory_format=layout)
            .requires_grad_()
            for size in SIZES
        ]
        self.boxes = torch.tensor(BOXES, dtype=dtype)
        self.maximum = reduce == "max"
        self.output = roi_align(
            self.features, self.boxes, (3, 5), SCALES, sampling_ratio, aligned, reduce,
            canonical_box_size=40, canonical_level=2, backend="reference",
        )  # fmt: skip
        self.grad = torch.randn(self.output.shape, generator=generator, dtype=dtype)
        self.gradients = torch.autograd.grad(self.output, self.features, self.grad)
        self.layout = layout
        lanes = 16 // dtype.itemsize if channels_last and channels % 4 == 0 else 1
        name = f"{'float' if dtype == torch.float32 else 'double'}{lanes}"
        self.forward_function = getattr(library, f"{name}_forward")
        self.forward_function.restype = ctypes.c_bool
        self.backward_function = getattr(library, f"{name}_backward")
        ints = [3, 5, sampling_ratio, 2, aligned, channels_last, 2, channels, len(BOXES), 2, 2]
        for height, width in SIZES:
            ints += [height, width]
        self.settings = (
            (ctypes.c_int * len(ints))(*map(int, ints)),
            (ctypes.c_double * 3)(40.0, *SCALES),
        )
        self.winners = torch.full(self.output.shape, -7, dtype=torch.int32).contiguous(
            memory_format=layout
        )

    def pointers(self, tensors):
        return (ctypes.c_void_p * len(tensors))(*(t.data_ptr() for t in tensors))

    def winner_pointer(self):
        return ctypes.c_void_p(self.winners.data_ptr() if self.maximum else None)

    def forward(self):
        output = torch.full_like(self.output.detach(), NAN).contiguous(memory_format=self.layout)
        self.forward_ok = self.forward_function(
            *self.settings,
            self.pointers(self.features),
            ctypes.c_void_p(self.boxes.data_ptr()),
            ctypes.c_void_p(output.data_ptr()),
            self.winner_pointer(),
        )
        return output

    def backward(self, fixed_order):
        # The tiles of the fixed order write every pixel; the others add to zeros.
        start = NAN if fixed_order and not self.maximum else 0.0
        maps = [torch.full_like(f.detach(), start) for f in self.features]
        grad = self.grad.contiguous(memory_format=self.layout)
        self.backward_function(
            *self.settings,
            ctypes.c_void_p(grad.data_ptr()),
            self.winner_pointer(),
            ctypes.c_void_p(self.boxes.data_ptr()),
            ctypes.c_bool(fixed_order),
            self.pointers(maps),
        )
        return maps


@pytest.mark.parametrize("reduce", ["avg", "max"])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2, 9])
@pytest.mark.parametrize(
    ("dtype", "channels", "channels_last"),
    [
        (torch.float32, 8, True),  # packs of four channels
        (torch.float32, 3, True),
        (torch.float32, 5, False),
        (torch.float64, 8, True),
        (torch.float64, 2, False),
    ],
)
def test_block_programs_agree_with_the_reference(
    emulator, dtype, channels, channels_last, sampling_ratio, aligned, reduce
):
    case = Case(
        emulator,
        dtype=dtype,
        channels=channels,
        channels_last=channels_last,
        sampling_ratio=sampling_ratio,
        aligned=aligned,
        reduce=reduce,
    )
    tolerance = {"rtol": 1e-4, "atol": 2e-5} if dtype == torch.float32 else {}
    torch.testing.assert_close(case.forward(), case.output.detach(), **tolerance)
    assert case.forward_ok
    for fixed_order in (False, True):
        for ours, reference in zip(case.backward(fixed_order), case.gradients, strict=True):
            torch.testing.assert_close(ours, reference, **tolerance)


def test_a_batch_index_outside_the_batch_trips_the_device_assertion(emulator):
    case = Case(
        emulator,
        dtype=torch.float32,
        channels=3,
        channels_last=True,
        sampling_ratio=2,
        aligned=True,
        reduce="avg",
    )
    case.boxes[1, 0] = 2
    case.forward()
    assert not case.forward_ok


def test_a_tile_of_more_channels_than_one_slab(emulator):
    case = Case(
        emulator,
        dtype=torch.float32,
        channels=260,
        channels_last=True,
        sampling_ratio=0,
        aligned=True,
        reduce="avg",
    )
    for ours, reference in zip(case.backward(True), case.gradients, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=2e-5)


def test_the_last_point_of_the_largest_bin_wins_and_takes_the_gradient(emulator):
    """65,535 points along both axes: the last one's number, 4,294,836,224, is an int of -131,072.

    Points are 1 apart and the last one lies on the pixel that is largest, at (1, 1) of 2x2.
    """
    settings = {"dtype": torch.float32, "channels": 1, "channels_last": False}
    case = Case(emulator, sampling_ratio=0, aligned=True, reduce="max", **settings)
    size, last = 65_535.0, 1.5 + 0.5
    case.settings = (
        (ctypes.c_int * 13)(1, 1, 0, 1, 1, 0, 1, 1, 1, 4, 0, 2, 2),
        (ctypes.c_double * 2)(224.0, 1.0),
    )
    case.features = [torch.tensor([[1.0, 2.0], [3.0, 9.0]]).reshape(1, 1, 2, 2)]
    case.boxes = torch.tensor([[0.0, last - size + 0.5, last - size + 0.5, last + 0.5, last + 0.5]])
    case.output = case.grad = torch.ones(1, 1, 1, 1)
    case.winners = torch.full((1, 1, 1, 1), -7, dtype=torch.int32)
    assert case.forward().item() == 9.0
    for fixed_order in (False, True):
        (gradient,) = case.backward(fixed_order)
        assert gradient.flatten().tolist() == [0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("problem", "beyond"),
    [
        ((2**31 - 2049, 1, 1, 1, 1, 1), None),
        ((2**31 - 2048, 1, 1, 1, 1, 1), b"regions"),
        ((1, (2**31 - 2049) // 4, 1, 1, 1, 4), None),
        ((1, (2**31 - 2049) // 4 + 1, 1, 1, 1, 4), b"maps"),
        ((1, 1, (2**31 - 2049) // 49, 7, 7, 1), None),
        ((1, 1, (2**31 - 2049) // 49 + 1, 7, 7, 1), b"values of one region"),
        ((1, 1, 2**33, 1, 1, 1), b"values of one region"),
        ((0, 0, 0, 2**26, 31, 1), None),
        ((0, 0, 0, 1, 2**26 + 1, 1), b"bins along an axis"),
    ],
)
def test_what_32_bits_cannot_count_is_named(emulator, problem, beyond):
    emulator.counts_beyond.restype = ctypes.c_char_p
    assert emulator.counts_beyond(*map(ctypes.c_int64, problem)) == beyond
