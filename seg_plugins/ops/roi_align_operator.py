"""RoIAlign over one feature map or a pyramid, with the level of each RoI chosen in the kernel.

Backends:
    ``cpu``: C++ with threads and vector instructions. ``cuda``: CUDA C++. ``torchvision``: what
    runs where the extension is not built, and on MPS and XPU. ``reference``: plain PyTorch, the
    oracle of the tests; it runs where torchvision has no kernel either.

:func:`backend_report` says which of them run here and why the others do not.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor

from . import roi_align_registration
from ._extension import load_cuda_extension, load_extension
from .roi_align_reference import MAX_SAMPLES, assign_levels, roi_align_reference

# Read once: torch.compile takes it as a constant.
_EXTENSION = load_extension()
_CUDA_EXTENSION = load_cuda_extension()

BACKENDS = ("cpu", "cuda", "torchvision", "reference")


@dataclass(frozen=True)
class Backend:
    """One implementation: whether it runs here, and why or why not."""

    name: str
    runs: bool
    reason: str


@dataclass(frozen=True)
class BackendReport:
    """Every backend of :func:`roi_align` and the one chosen for each device type."""

    backends: tuple[Backend, ...]
    chosen: dict[str, str]

    def __str__(self) -> str:
        """A line per backend, then the choices."""
        lines = [f"{b.name:12} {'runs' if b.runs else '-':5} {b.reason}" for b in self.backends]
        return "\n".join([*lines, *(f"{d} tensors: {b}" for d, b in self.chosen.items())])


def backend_report() -> BackendReport:
    """Say which backend of :func:`roi_align` runs on which device, and why the others do not."""
    if _EXTENSION.loaded:
        threads, vectors = torch.get_num_threads(), torch.ops.seg_plugins.instruction_set()
        cpu = Backend("cpu", True, f"compiled, {vectors} instructions, {threads} threads")
    else:
        cpu = Backend("cpu", False, _EXTENSION.reason)
    if not _CUDA_EXTENSION.loaded:
        cuda = Backend("cuda", False, _CUDA_EXTENSION.reason)
    elif not torch.cuda.is_available():
        cuda = Backend("cuda", False, "compiled, but no CUDA GPU is available")
    else:
        cuda = Backend("cuda", True, f"compiled, {torch.cuda.get_device_name()}")
    backends = (
        cpu,
        cuda,
        Backend("torchvision", True, f"version {torchvision.__version__}, reduce='avg' only"),
        Backend("reference", True, "plain PyTorch, slow"),
    )
    chosen = {"cpu": _choose_backend("cpu", "avg")}
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        chosen[accelerator.type] = _choose_backend(accelerator.type, "avg")
    return BackendReport(backends, chosen)


def _choose_backend(device_type: str, reduce: str) -> str:
    if device_type == "cpu" and _EXTENSION.loaded:
        return "cpu"
    if device_type == "cuda" and _CUDA_EXTENSION.loaded:
        return "cuda"
    if device_type in ("cpu", "cuda"):
        return "torchvision" if reduce == "avg" else "reference"
    chosen = "torchvision" if reduce == "avg" and _torchvision_takes(device_type) else "reference"
    _notice(device_type, chosen)
    return chosen


def _torchvision_takes(device_type: str) -> bool:
    """Whether torchvision's operator has a kernel there: "mps" and "xpu" are keys of their own."""
    key = {"mps": "MPS", "xpu": "XPU"}.get(device_type, "PrivateUse1")
    return torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::roi_align", key)


@functools.cache
def _notice(device_type: str, chosen: str) -> None:
    """Say once what runs in place of a compiled operator."""
    runs = {"torchvision": "torchvision's operator", "reference": "plain PyTorch, which is slow,"}
    logging.getLogger(__name__).warning(
        "roi_align has no compiled form for %s tensors: %s runs there", device_type, runs[chosen]
    )


def roi_align(
    features: Tensor | Sequence[Tensor],
    boxes: Tensor,
    output_size: int | Sequence[int],
    spatial_scales: float | Sequence[float],
    sampling_ratio: int = 0,
    aligned: bool = True,
    reduce: str = "avg",
    canonical_box_size: float = 224,
    canonical_level: int = 4,
    min_level: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """Pool regions of interest to a fixed size (He et al., Mask R-CNN, section 3).

    Args:
        features: A map (N, C, H, W) or a pyramid of them, finest first; float64, float32, float16
            or bfloat16, contiguous or channels last (which is several times faster on the CPU).
            Sums are kept in float32, for float64 in float64.
        boxes: (K, 5) batch index, x0, y0, x1, y1 in input pixels. They get no gradient.
        output_size: Bins (h, w); one number for a square.
        spatial_scales: Pixels of each map per input pixel: 1 / stride. A pyramid's must halve from
            level to level.
        sampling_ratio: Sampling points per bin and axis; 0 takes as many as the bin has pixels,
            rounded up.
        aligned: Take pixel centres at half-integers (Detectron2's ROIAlignV2). False is the
            original's half-pixel shift, with boxes of at least one pixel.
        reduce: ``"avg"``: mean of a bin's points. ``"max"``: their maximum, whose gradient goes to
            the four pixels around the winning point.
        canonical_box_size: Side in input pixels of a box that belongs to ``canonical_level``.
        canonical_level: The level of such a box; twice the side is the next level. FPN, eq. (1).
        min_level: The level of the first map; by default -log2 of its scale.
        backend: One of ``BACKENDS``; by default the fastest that runs on the features' device.

    Returns:
        (K, C, h, w) in the features' dtype and memory layout.

    A point more than one pixel off the map is zero; a nearer one is clamped onto the map. A box
    with a coordinate that is NaN or infinite pools to zero. So does a reversed or empty one
    (``x1 <= x0``) where ``aligned`` and ``sampling_ratio`` is 0, which leaves it without points,
    and on a pyramid one whose area is negative, which no level takes.

    Raises:
        ValueError: Shapes, scales, ``sampling_ratio``, ``reduce`` or ``backend`` are wrong.
        TypeError: The levels have different dtypes.
        IndexError: A batch index is outside the batch (on CUDA a device-side assertion, so that
            the host need not wait).
        RuntimeError: The asked-for backend does not run here.
    """
    maps = [features] if isinstance(features, Tensor) else list(features)
    scales = (
        [float(spatial_scales)]
        if isinstance(spatial_scales, (int, float))
        else [float(scale) for scale in spatial_scales]
    )
    size = _pair(output_size)
    _check_arguments(maps, scales, reduce, sampling_ratio)
    if min_level is None:
        min_level = round(-math.log2(scales[0]))
    device_type = maps[0].device.type
    chosen = _choose_backend(device_type, reduce) if backend is None else backend
    if chosen in ("cpu", "cuda"):
        if backend is not None:
            _check_backend(backend, device_type)
        _check_dtypes(maps)
        return torch.ops.seg_plugins.roi_align.default(
            maps, boxes, size, scales, sampling_ratio, aligned, reduce == "max",
            canonical_box_size, canonical_level, min_level,
        )[0]  # fmt: skip
    if chosen not in BACKENDS:
        raise ValueError(f"roi_align: unknown backend {backend!r}; choose one of {BACKENDS}")
    _check_boxes(boxes)
    if chosen == "torchvision" and reduce != "avg":
        raise ValueError("roi_align: backend 'torchvision' has reduce='avg' only")
    run = _roi_align_torchvision if chosen == "torchvision" else roi_align_reference
    return run(
        maps, boxes, size, scales, sampling_ratio, aligned, reduce,
        canonical_box_size, canonical_level, min_level,
    )  # fmt: skip


def _pair(output_size: int | Sequence[int]) -> tuple[int, int]:
    size = [output_size] * 2 if isinstance(output_size, int) else list(output_size)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"roi_align: output_size must be (h, w), both positive; got {size}")
    return size[0], size[1]


def _check_arguments(
    maps: list[Tensor], scales: list[float], reduce: str, sampling_ratio: int
) -> None:
    if not maps or len(maps) != len(scales):
        raise ValueError(
            f"roi_align: {len(maps)} feature maps but {len(scales)} spatial scales; "
            "give one scale per map"
        )
    if min(scales) <= 0:
        raise ValueError(f"roi_align: spatial scales must be positive, got {scales}")
    for finer, coarser in itertools.pairwise(scales):
        if abs(finer - 2 * coarser) > 1e-6 * finer:  # math.isclose cannot be compiled
            raise ValueError(
                f"roi_align: a pyramid's scales must halve from level to level, got {scales}"
            )
    if reduce not in ("avg", "max"):
        raise ValueError(f"roi_align: reduce must be 'avg' or 'max', got {reduce!r}")
    if sampling_ratio > MAX_SAMPLES:
        raise ValueError(
            f"roi_align: sampling_ratio must be at most {MAX_SAMPLES}, got {sampling_ratio}"
        )


def _check_dtypes(maps: list[Tensor]) -> None:
    """Autocast casts levels that disagree; nothing else does."""
    for level in maps[1:]:
        if level.dtype != maps[0].dtype and not torch.is_autocast_enabled(level.device.type):
            raise TypeError(
                "roi_align: all levels must have one dtype; "
                f"got {level.dtype} beside {maps[0].dtype}"
            )


def _check_boxes(boxes: Tensor) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 5:
        raise ValueError(
            "roi_align: boxes must be (K, 5): batch index, x0, y0, x1, y1; "
            f"got {tuple(boxes.shape)}"
        )


def _check_backend(backend: str, device_type: str) -> None:
    status = next(b for b in backend_report().backends if b.name == backend)
    if not status.runs:
        raise RuntimeError(f"roi_align: backend {backend!r} does not run here: {status.reason}")
    if backend != device_type:
        raise RuntimeError(f"roi_align: backend {backend!r} cannot take {device_type} tensors")


# ------------------------------------------------------------------------- torchvision fallback

# torchvision tabulates all points of a box: beyond this many per bin and axis it takes too much.
_TORCHVISION_MAX_SAMPLES = 256


def _roi_align_torchvision(
    features: Sequence[Tensor],
    boxes: Tensor,
    output_size: tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    reduce: str,
    canonical_box_size: float,
    canonical_level: int,
    min_level: int,
) -> Tensor:
    """Run torchvision's operator level by level, on boxes that it can take.

    Its CPU kernel crashes on NaN and infinity, fails on reversed boxes and reads out of bounds on
    a bad batch index. Such boxes never reach it: they pool to zero here, and boxes of absurd size
    go to the reference.
    """
    first = features[0]
    compute = torch.float64 if first.dtype == torch.float64 else torch.float32
    boxes = boxes.to(compute)
    in_batch = (boxes[:, 0] > -1) & (boxes[:, 0] < first.shape[0])
    if not bool(in_batch.all()):
        bad = int((~in_batch).nonzero()[0])
        raise IndexError(
            f"roi_align: boxes[{bad}] is of image {boxes[bad, 0].item()}, "
            f"but the batch has {first.shape[0]} images"
        )
    levels = assign_levels(boxes, len(features), canonical_box_size, canonical_level, min_level)
    scales = boxes.new_tensor(spatial_scales)[levels.clamp(min=0)]
    start = boxes[:, 1:3] * scales[:, None] - (0.5 if aligned else 0.0)
    end = boxes[:, 3:5] * scales[:, None] - (0.5 if aligned else 0.0)
    extent = end - start if aligned else (end - start).clamp(min=1.0)
    pools = (levels >= 0) & (start.isfinite() & extent.isfinite()).all(1)
    bins = boxes.new_tensor([output_size[1], output_size[0]])
    if sampling_ratio <= 0:
        samples = (extent / bins).ceil()
        pools &= ((samples > 0) & (samples <= MAX_SAMPLES)).all(1)
        absurd = pools & (samples > _TORCHVISION_MAX_SAMPLES).any(1)
    else:
        absurd = torch.zeros_like(pools)

    # Every level is pooled, if only for no boxes: so each one gets a gradient, zero or not.
    output = first.new_zeros(len(boxes), first.shape[1], *output_size)
    for level, feature in enumerate(features):
        here = (levels == level) & pools & ~absurd
        index = here.nonzero().squeeze(1)
        wide = feature.to(compute)
        pooled = torchvision.ops.roi_align(
            wide, boxes[index], output_size, spatial_scales[level], sampling_ratio, aligned
        )
        output = output.index_put((index,), pooled.to(first.dtype))
    if bool(absurd.any()):
        index = absurd.nonzero().squeeze(1)
        pooled = roi_align_reference(
            features, boxes[index], output_size, spatial_scales, sampling_ratio, aligned, reduce,
            canonical_box_size, canonical_level, min_level,
        )  # fmt: skip
        output = output.index_put((index,), pooled)
    if first.is_contiguous(memory_format=torch.channels_last) and not first.is_contiguous():
        output = output.contiguous(memory_format=torch.channels_last)
    return output


if _EXTENSION.loaded:
    roi_align_registration.register()
