"""Warping of one binary image towards another without changing its topology."""

from __future__ import annotations

import functools

import numpy as np
import torch

from .segmentation_metrics import as_tensor, compiled

# The eight neighbours in reading order, as (row, column) offsets; bit i of a neighbourhood.
_OFFSETS = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


@functools.cache
def simple_points() -> np.ndarray:
    """(256,) uint8: 1 where flipping the centre of a 3x3 neighbourhood keeps the topology.

    Foreground is 4-connected, background 8-connected, as in the ISBI 2012 challenge: the centre
    is simple when exactly one 4-component of foreground (within the eight neighbours) touches it
    by an edge and exactly one 8-component of background touches it.
    """
    table = np.zeros(256, np.uint8)
    for bits in range(256):
        foreground = {o for i, o in enumerate(_OFFSETS) if bits >> i & 1}
        background = set(_OFFSETS) - foreground
        edges = {o for o in _OFFSETS if 0 in o}
        # A simple centre touches background by a corner or an edge, foreground by an edge.
        table[bits] = (
            _components_touching(foreground, foreground & edges, reach=1) == 1
            and _components_touching(background, background, reach=2) == 1
        )
    return table


def _components_touching(points: set, touching: set, reach: int) -> int:
    """Components of `points`, neighbours being `reach` apart (squared), that meet `touching`."""
    left, count = set(points), 0
    while left:
        stack, component = [left.pop()], set()
        while stack:
            y, x = stack.pop()
            component.add((y, x))
            near = {p for p in left if (p[0] - y) ** 2 + (p[1] - x) ** 2 <= reach}
            left -= near
            stack.extend(near)
        count += bool(component & touching)
    return count


def homotopic_warp(
    source: np.ndarray, target: np.ndarray, mask: np.ndarray | None = None
) -> np.ndarray:
    """`source` with simple points flipped towards `target` until none is left.

    Goes in rounds: the differing points that are simple when a round begins are visited in
    reading order and flipped where they are simple still.

    Args:
        source: (H, W), non-zero is foreground (4-connected); outside the image is background.
        target: (H, W), the image to come close to.
        mask: (H, W), non-zero where pixels may be flipped; None allows all.

    Returns:
        (H, W) uint8 of 0 and 1, with the topology of `source`.

    Raises:
        ValueError: the images are not (H, W) or differ in size.
    """
    image = (source != 0).astype(np.uint8)
    goal = (target != 0).astype(np.uint8)
    allowed = np.ones_like(image) if mask is None else (mask != 0).astype(np.uint8)
    if image.ndim != 2 or not image.shape == goal.shape == allowed.shape:
        raise ValueError(
            "source, target and mask must be (H, W) of one size, got "
            f"{image.shape}, {goal.shape} and {allowed.shape}"
        )
    simple = simple_points()
    if compiled():
        return torch.ops.seg_plugins.homotopic_warp(
            as_tensor(image), as_tensor(goal), as_tensor(allowed), as_tensor(simple)
        ).numpy()
    padded = np.pad(image, 1)
    inner = padded[1:-1, 1:-1]
    changed = True
    while changed:
        changed = False
        candidates = (inner != goal) & (allowed != 0) & (simple[_neighbourhoods(padded)] != 0)
        for y, x in np.argwhere(candidates):
            window = padded[y : y + 3, x : x + 3].reshape(-1)
            bits = int(np.packbits(np.delete(window, 4), bitorder="little")[0])
            if simple[bits]:
                inner[y, x] = goal[y, x]
                changed = True
    return np.ascontiguousarray(inner)


def _neighbourhoods(padded: np.ndarray) -> np.ndarray:
    height, width = padded.shape[0] - 2, padded.shape[1] - 2
    bits = np.zeros((height, width), np.uint8)
    for i, (dy, dx) in enumerate(_OFFSETS):
        bits |= padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] << i
    return bits
