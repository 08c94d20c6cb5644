"""Run every CUDA kernel of RoIAlign on small and awkward inputs, for compute-sanitizer.

    compute-sanitizer --tool memcheck python tools/roi_align_cases.py
    compute-sanitizer --tool racecheck python tools/roi_align_cases.py
    python tools/roi_align_cases.py cpu     # the same cases of the CPU's operator

Compares with the plain PyTorch form on the CPU; exits 1 where they differ.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import seg_plugins  # noqa: F401 - repairs Detectron2 first
from seg_plugins.ops import roi_align

import torch

SCALES = [1 / 2, 1 / 4, 1 / 8, 1 / 16]
BOXES = [
    [0, 3.0, 5.0, 40.0, 61.0],
    [1, -30.0, -20.0, 25.0, 31.0],  # partly off the map
    [0, 500.0, 500.0, 600.0, 600.0],  # off the map
    [0, 60.0, 50.0, 20.0, 10.0],  # reversed
    [0, 7.0, 7.0, 7.0, 7.0],  # empty
    [1, float("nan"), 0.0, 3.0, 4.0],
    [0, -1e6, -1e6, 1e6, 1e6],  # huge
    [1, 1.0, 2.0, 17.0, 9.0],
]
TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def case(
    device: str, dtype: torch.dtype, channels: int, size: int, last: bool, reduce: str,
    levels: int, fixed: bool,
) -> float:  # fmt: skip
    """The largest difference from the plain form, of outputs and gradients, relative above 1."""
    torch.manual_seed(0)
    layout = torch.channels_last if last else torch.contiguous_format
    maps = [torch.randn(2, channels, max(size >> i, 1), max(size >> i, 1)).to(dtype)
            for i in range(levels)]  # fmt: skip
    worst = 0.0
    for boxes in (torch.tensor(BOXES), torch.zeros(0, 5)):
        plain = [m.float().requires_grad_() for m in maps]
        ours = [m.to(device).contiguous(memory_format=layout).requires_grad_() for m in maps]
        arguments = ((3, 2), SCALES[:levels], 0, True, reduce, 40, 2)
        expected = roi_align(plain, boxes, *arguments, backend="reference")
        torch.use_deterministic_algorithms(fixed)
        found = roi_align(ours, boxes.to(device), *arguments, backend=device)
        grad = torch.randn_like(expected)
        wanted = torch.autograd.grad(expected, plain, grad, allow_unused=True)
        got = torch.autograd.grad(found, ours, grad.to(found))
        torch.use_deterministic_algorithms(False)
        pairs = [(found, expected), *zip(got, wanted, strict=True)]
        for mine, reference in pairs:
            reference = torch.zeros(mine.shape) if reference is None else reference
            if mine.numel():
                apart = (mine.float().cpu() - reference).abs() / (1 + reference.abs())
                worst = max(worst, apart.max().item())
    return worst


def main() -> int:
    device = sys.argv[1] if len(sys.argv) > 1 else "cuda"
    if device not in ("cpu", "cuda"):
        sys.exit(f"the device is cpu or cuda, not {device}")
    failures = 0
    for dtype, tolerance in TOLERANCES.items():
        shapes = [(1, 33), (8, 33), (19, 1), (264, 9)]
        for (channels, size), last, reduce, levels, fixed in itertools.product(
            shapes, (True, False), ("avg", "max"), (1, 4), (False, True)
        ):
            if reduce == "max" and dtype != torch.float32:
                continue  # rounded values choose other winners
            difference = case(device, dtype, channels, size, last, reduce, levels, fixed)
            if not difference <= tolerance:
                failures += 1
                print(dtype, channels, size, last, reduce, levels, fixed, "differ by", difference)
    if device == "cuda":
        torch.cuda.synchronize()
    print(f"RoIAlign cases: {failures} differ")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
