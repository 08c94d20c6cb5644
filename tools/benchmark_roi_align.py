"""Time RoIAlign against Detectron2's ROIPooler and torchvision, and against the memory floor.

    python tools/benchmark_roi_align.py            # CPU, and the GPU where there is one
    python tools/benchmark_roi_align.py --threads 2 --repeats 9

All candidates of a row take turns in one process, which keeps freed memory as a training on the CPU
does; right before each all threads have had work, as amid a network. Figures are medians, a ratio
is the peer's time over ours. On the CPU the map pyramid is of one 800x1216 image, on the GPU of 16
images of 800x1344; 256 channels, strides 4 to 32, boxes of log-uniform side 16 to 600 pixels. Peers
get contiguous (NCHW) maps, their best layout. The floor is the time to read the touched pixels once
and write the output once (backward: to read the output's gradient and write the maps' once) at the
bandwidth that a copy reaches here.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import seg_plugins  # noqa: F401 - repairs Detectron2 first
from seg_plugins.engine.process import keep_freed_memory
from seg_plugins.modeling.roi_pooler import FusedROIPooler
from seg_plugins.ops import backend_report
from seg_plugins.ops.roi_align_reference import assign_levels

import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from timing import medians

STRIDES = (4, 8, 16, 32)
SCALES = [1 / s for s in STRIDES]
CHANNELS = 256


def random_boxes(count: int, height: int, width: int) -> torch.Tensor:
    """(count, 4) boxes inside the image: log-uniform side 16-600, aspect e^(+-0.35)."""
    side = torch.empty(count).uniform_(math.log(16), math.log(600)).exp()
    aspect = torch.empty(count).uniform_(-0.35, 0.35).exp().sqrt()
    size = torch.stack([(side * aspect).clamp(max=width), (side / aspect).clamp(max=height)], 1)
    corner = torch.rand(count, 2) * (torch.tensor([float(width), float(height)]) - size)
    return torch.cat([corner, corner + size], 1)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per millisecond that a copy reads and writes."""
    source = torch.ones(2**26 if device.type == "cpu" else 2**28, device=device)
    target = torch.empty_like(source)
    best = medians({"copy": lambda: target.copy_(source)}, 7, device.type)["copy"]
    return 2 * source.nbytes / best


def touched_bytes(boxes: list[torch.Tensor], height: int, width: int, itemsize: int) -> int:
    """Bytes of the pixels that some box reads, each counted once."""
    total = 0
    for image in boxes:
        indexed = torch.cat([image.new_zeros(len(image), 1), image], 1)
        levels = assign_levels(indexed, 4, 224, 4, 2)
        for level, stride in enumerate(STRIDES):
            mask = torch.zeros(height // stride, width // stride, dtype=torch.bool)
            for x0, y0, x1, y1 in (image[levels == level] / stride).tolist():
                mask[max(int(y0 - 0.5), 0) : int(y1 + 1), max(int(x0 - 0.5), 0) : int(x1 + 1)] = 1
            total += int(mask.sum())
    return total * CHANNELS * itemsize


def forward_backward(
    pooler: torch.nn.Module, maps: list[torch.Tensor], boxes: list[Boxes], grad: torch.Tensor
) -> list[torch.Tensor]:
    leaves = [m.detach().requires_grad_() for m in maps]
    pooler(leaves, boxes).backward(grad)
    return [leaf.grad for leaf in leaves if leaf.grad is not None]


def row(
    device: torch.device,
    dtype: torch.dtype,
    images: int,
    size: tuple[int, int],
    rois: int,
    bins: int,
    sampling_ratio: int,
    repeats: int,
    bandwidth: float,
) -> None:
    """Measure and print one row of the table."""
    torch.manual_seed(0)
    raw_boxes = [random_boxes(rois, *size) for _ in range(images)]
    boxes = [Boxes(b.to(device)) for b in raw_boxes]
    maps = [
        torch.randn(images, CHANNELS, size[0] // s, size[1] // s, device=device).to(dtype)
        for s in STRIDES
    ]
    last = [m.contiguous(memory_format=torch.channels_last) for m in maps]
    arguments = (bins, SCALES, sampling_ratio, "ROIAlignV2")
    peer, ours = ROIPooler(*arguments), FusedROIPooler(*arguments)
    # torchvision has no bfloat16: autocast brings its maps to fp32, as in a training.
    peer_maps = [m.float() for m in maps] if dtype == torch.bfloat16 else maps

    def run_peer() -> torch.Tensor:
        fed = [m.float() for m in maps] if dtype == torch.bfloat16 else maps
        return peer(fed, boxes)

    expected = peer(peer_maps, boxes)
    with torch.no_grad():
        error = max((ours(m, boxes).float() - expected).abs().max().item() for m in (last, maps))
        own = {"last": lambda: ours(last, boxes), "planes": lambda: ours(maps, boxes)}
        if device.type == "cpu":
            own |= {f"{k}, 1 thread": partial(on_one_thread, work) for k, work in own.items()}
        forward = medians({"peer": run_peer, **own}, repeats, device.type, wake_threads)
    grad = torch.randn_like(expected)
    ours_grad = grad.to(dtype)
    last_grad = ours_grad.contiguous(memory_format=torch.channels_last)
    steps = {
        "peer": lambda: forward_backward(peer, peer_maps, boxes, grad),
        "last": lambda: forward_backward(ours, last, boxes, last_grad),
        "planes": lambda: forward_backward(ours, maps, boxes, ours_grad),
    }
    if device.type == "cuda":  # on the CPU the order of the sums is always fixed
        steps["fixed"] = partial(in_a_fixed_order, steps["last"])
    both = medians(
        steps,
        max(3, repeats // 2),
        device.type,
        wake_threads,
    )
    output_bytes = images * rois * CHANNELS * bins * bins * dtype.itemsize
    floor = (touched_bytes(raw_boxes, *size, dtype.itemsize) + output_bytes) / bandwidth
    backward_floor = (output_bytes + sum(m.nbytes for m in maps)) / bandwidth
    name = f"{images * rois} x {bins}x{bins}, sr {sampling_ratio}, {str(dtype)[6:]}"
    print(
        f"| {name} | {forward['peer']:.2f} | {_against_peer(forward, 'last', 2)} "
        f"| {_against_peer(forward, 'planes', 2)} | {floor:.2f} "
        f"| {both['peer']:.1f} | {_against_peer(both, 'last', 1)} "
        f"| {_against_peer(both, 'planes', 1)} "
        f"| {_against_peer(both, 'fixed' if 'fixed' in both else 'last', 1)} "
        f"| {floor + backward_floor:.1f} "
        f"| {error:.0e} |",
        flush=True,
    )
    if device.type == "cpu":
        print(
            f"|   1 -> {torch.get_num_threads()} threads "
            f"| | {forward['last, 1 thread'] / forward['last']:.2f}x "
            f"| {forward['planes, 1 thread'] / forward['planes']:.2f}x | | | | | | | |"
        )


def in_a_fixed_order(work: Callable[[], Any]) -> Any:
    """Run with PyTorch's deterministic algorithms."""
    torch.use_deterministic_algorithms(True)
    result = work()
    torch.use_deterministic_algorithms(False)
    return result


def wake_threads() -> None:
    """Have all threads work, as other operators of a network do right before RoIAlign."""
    torch.ones(2**20).add_(1)


def on_one_thread(work: Callable[[], Any]) -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    result = work()
    torch.set_num_threads(threads)
    return result


def _against_peer(times: dict[str, float], name: str, digits: int) -> str:
    return f"{times[name]:.{digits}f} ({times['peer'] / times[name]:.1f}x)"


def table(device: torch.device, repeats: int, rows: int) -> None:
    """Print the first rows for one device."""
    bandwidth = copy_bandwidth(device)
    images, size = (1, (800, 1216)) if device.type == "cpu" else (16, (800, 1344))
    alone = ""
    if device.type == "cpu":  # what a second thread can add where memory is the limit
        alone = f" ({on_one_thread(partial(copy_bandwidth, device)) / 1e6:.1f} on one thread)"
    print(f"\n{device}: copies at {bandwidth / 1e6:.1f} GB/s{alone}; milliseconds, (peer / ours)\n")
    print(
        "| RoIs | ROIPooler fwd | channels last | NCHW | floor | ROIPooler fwd+bwd "
        "| channels last | NCHW | fixed order | floor | largest difference |\n|" + "---|" * 11
    )
    dtypes = [torch.float32] if device.type == "cpu" else [torch.float32, torch.bfloat16]
    cases = itertools.product(dtypes, ((512, 7), (128, 14)), (0, 2))
    for dtype, (rois, bins), sampling_ratio in itertools.islice(cases, rows):
        row(device, dtype, images, size, rois, bins, sampling_ratio, repeats, bandwidth)


def count_synchronizations(device: torch.device) -> None:
    """Print how many kernels and host synchronisations one pooling takes on the GPU."""
    boxes = [Boxes(random_boxes(512, 800, 1344).to(device)) for _ in range(2)]
    maps = [torch.randn(2, CHANNELS, 800 // s, 1344 // s, device=device) for s in STRIDES]
    maps = [m.contiguous(memory_format=torch.channels_last) for m in maps]
    pooler = FusedROIPooler(7, SCALES, 0, "ROIAlignV2")
    pooler(maps, boxes)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.no_grad(), torch.profiler.profile(activities=activities) as profile:
        pooler(maps, boxes)
    names = [event.key for event in profile.key_averages()]
    kernels = [n for n in names if "pool_kernel" in n]
    waits = [n for n in names if "Synchronize" in n and "Device" not in n]
    print(f"\nOne pooling: RoIAlign kernels {len(kernels)}, host synchronisations {len(waits)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--rows", type=int, default=8, help="the first of the table only")
    parser.add_argument("--device", choices=["cpu", "cuda", "all"], default="all")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    print(backend_report())
    if args.device in ("cpu", "all"):
        table(torch.device("cpu"), args.repeats, args.rows)
    if args.device in ("cuda", "all"):
        if torch.cuda.is_available():
            table(torch.device("cuda"), args.repeats, args.rows)
            count_synchronizations(torch.device("cuda"))
        else:
            print("\nGPU: not run (no CUDA GPU is available)")


if __name__ == "__main__":
    main()
