"""Painting instances and stuff into one map of segments, in bulk."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .precision import widest_float
from .run_length import RunLengthMasks
from .segmentation_metrics import compiled


class MergedSegments(NamedTuple):
    """One image's segments.

    Attributes:
        ids: (H, W) int32; 0 is void, then come the kept instances in their order, then the kept
            stuff by ascending label, numbered without gaps.
        kept_instances: (M,) bool, by place in the order.
        kept_stuff: (K,) bool, by label.
        stuff_areas: (K,) int64, pixels of each label that no instance takes.
    """

    ids: Tensor
    kept_instances: Tensor
    kept_stuff: Tensor
    stuff_areas: Tensor


def merge_segments(
    masks: Tensor | RunLengthMasks,
    order: Tensor,
    candidate: Tensor,
    labels: Tensor,
    is_stuff: Tensor,
    *,
    overlap_threshold: float,
    stuff_area_threshold: float,
) -> MergedSegments:
    """Claim pixels for one instance after the other, then for stuff.

    An instance is kept unless more than `overlap_threshold` of it is claimed already; it takes the
    rest of its pixels. A stuff label is kept if at least `stuff_area_threshold` of its pixels are
    left over. What would get no pixel is not kept, whatever the thresholds.

    Runs where the labels are. Bitmasks on a device are merged there, and the host waits for
    nothing. On the CPU, and for run lengths, the compiled form runs on the CPU: what
    lies on a device is then copied, each tensor once, however many instances there are.

    Args:
        masks: (N, H, W) bool, or run lengths of N masks.
        order: (M,) int64 indices into `masks`, the first claim first.
        candidate: (M,) bool; False leaves an instance out.
        labels: (H, W) int64, 0..K-1.
        is_stuff: (K,) bool.
        overlap_threshold: share of an instance's area.
        stuff_area_threshold: pixels.

    Raises:
        ValueError: a shape or type is not as above, masks and labels differ in size, or a label is
            outside 0..K-1 (on the CPU).
    """
    _check(order, candidate, labels, is_stuff)
    if tuple(masks.shape[-2:] if isinstance(masks, Tensor) else masks.size) != labels.shape:
        size = masks.shape if isinstance(masks, Tensor) else (len(masks), *masks.size)
        raise ValueError(f"masks are {tuple(size)}, but the labels {tuple(labels.shape)}")
    if isinstance(masks, RunLengthMasks) or masks.device.type == "cpu":
        if compiled():
            return _merge_compiled(
                masks, order, candidate, labels, is_stuff, overlap_threshold, stuff_area_threshold
            )
        if isinstance(masks, RunLengthMasks):
            masks = torch.from_numpy(masks.to_bitmasks()).to(labels.device, torch.bool)
    on_cpu = masks.device.type == "cpu"
    if on_cpu:
        _check_labels(labels, len(is_stuff))
    windows = _boxes(masks) if on_cpu and masks.numel() else None
    ids, kept = _claim(masks, order, candidate, overlap_threshold, windows)
    return _fill_stuff(ids, kept, labels, is_stuff, stuff_area_threshold)


def _check(order: Tensor, candidate: Tensor, labels: Tensor, is_stuff: Tensor) -> None:
    wanted = {
        "order": (order, 1, torch.int64),
        "candidate": (candidate, 1, torch.bool),
        "labels": (labels, 2, torch.int64),
        "is_stuff": (is_stuff, 1, torch.bool),
    }
    for name, (tensor, dimensions, dtype) in wanted.items():
        if tensor.ndim != dimensions or tensor.dtype != dtype:
            raise ValueError(
                f"{name} must have {dimensions} dimension(s) and type {dtype}, got "
                f"{tuple(tensor.shape)} {tensor.dtype}"
            )
    if len(order) != len(candidate):
        raise ValueError(f"{len(order)} indices in order, but {len(candidate)} candidates")


def _check_labels(labels: Tensor, classes: int) -> None:
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.numel():
        raise ValueError(f"merge: label {int(outside[0])} is outside the {classes} classes")


def _merge_compiled(
    masks: Tensor | RunLengthMasks,
    order: Tensor,
    candidate: Tensor,
    labels: Tensor,
    is_stuff: Tensor,
    overlap_threshold: float,
    stuff_area_threshold: float,
) -> MergedSegments:
    device = labels.device
    rest = (order[candidate].cpu(), labels.cpu(), is_stuff.cpu())
    thresholds = (float(overlap_threshold), float(stuff_area_threshold))
    if isinstance(masks, RunLengthMasks):
        found = torch.ops.seg_plugins.merge_run_lengths(*masks.tensors(), *rest, *thresholds)
    else:
        found = torch.ops.seg_plugins.merge_masks(masks, *rest, *thresholds)
    ids, kept_candidates, kept_stuff, areas = (tensor.to(device) for tensor in found)
    kept = torch.zeros_like(candidate)
    kept[candidate] = kept_candidates
    return MergedSegments(ids, kept, kept_stuff, areas)


def _claim(
    masks: Tensor,
    order: Tensor,
    candidate: Tensor,
    threshold: float,
    windows: list[tuple[slice, slice]] | None,
) -> tuple[Tensor, Tensor]:
    """Ids (H, W) of the kept instances and which are kept.

    Whether an instance is kept depends on all before it, so the launches follow one another. On a
    device each decision stays there, as a factor of the next launch, and a launch sees the whole
    image; on the CPU it sees the instance's box.
    """
    ids = torch.zeros(masks.shape[-2:], dtype=torch.int32, device=masks.device)
    kept = torch.zeros_like(candidate)
    count = torch.zeros((), dtype=torch.int32, device=masks.device)
    exact = widest_float(masks.device)
    for place in range(len(order)):
        index = order[place : place + 1]
        if windows is None:
            mask, around = masks.index_select(0, index)[0], ids
        else:
            window = windows[int(index)]
            mask, around = masks[int(index)][window], ids[window]
        free = mask & (around == 0)
        area = mask.sum(dtype=exact)
        claimed = area - free.sum(dtype=exact)
        keep = candidate[place] & (area > claimed) & (claimed / area <= threshold)
        count += keep
        around.copy_(torch.where(free & keep, count, around))
        kept[place] = keep
    return ids, kept


def _boxes(masks: Tensor) -> list[tuple[slice, slice]]:
    """The rows and columns that each mask reaches."""
    sides = []
    for inside in (masks.any(dim=2), masks.any(dim=1)):
        first = inside.byte().argmax(dim=1)
        last = inside.shape[1] - inside.flip(1).byte().argmax(dim=1)
        sides.append([slice(*ends) for ends in zip(first.tolist(), last.tolist(), strict=True)])
    return list(zip(*sides, strict=True))


def _fill_stuff(
    ids: Tensor, kept: Tensor, labels: Tensor, is_stuff: Tensor, threshold: float
) -> MergedSegments:
    free = ids == 0
    size = len(is_stuff)
    flat = labels.reshape(-1)
    areas = torch.zeros(size, dtype=torch.int64, device=ids.device)
    areas.scatter_add_(0, flat, free.reshape(-1).long())
    kept_stuff = is_stuff & (areas > 0) & (areas >= threshold)
    numbers = (kept.sum() + kept_stuff.cumsum(0)) * kept_stuff
    ids = torch.where(free, numbers.to(ids.dtype)[labels], ids)
    return MergedSegments(ids, kept, kept_stuff, areas)
