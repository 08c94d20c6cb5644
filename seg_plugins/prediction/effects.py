"""Cut-out and portrait blur, from a mask and its picture. Pictures are RGB."""

from __future__ import annotations

import cv2
import numpy as np

# Squared grey levels (of 1) below which the guided filter smooths and above which it keeps edges.
_EDGE_VARIANCE = 1e-3


def soft_alpha(mask: np.ndarray, image: np.ndarray, edge: int | None = None) -> np.ndarray:
    """A mask with a soft edge that clings to the edges of the picture.

    The guided filter of He et al. (2013, section 3), with the picture's brightness as the guide.

    Args:
        mask: (H, W) bool.
        image: (H, W, 3) uint8.
        edge: reach of the softness in pixels, 0 for none; None takes a 200th of the longer side.

    Returns:
        (H, W) float32 in [0, 1]; what lies farther than twice the reach from the mask's outline
        is exactly 0 or 1.
    """
    edge = max(round(max(mask.shape) / 200), 1) if edge is None else edge
    hard = mask.astype(np.float32)
    if edge == 0:
        return hard
    guide = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    mean_guide, mean_mask = _mean(guide, edge), _mean(hard, edge)
    covariance = _mean(guide * hard, edge) - mean_guide * mean_mask
    variance = _mean(guide * guide, edge) - mean_guide**2
    slope = covariance / (np.maximum(variance, 0) + _EDGE_VARIANCE)
    shift = mean_mask - slope * mean_guide
    alpha = (_mean(slope, edge) * guide + _mean(shift, edge)).clip(0, 1)
    # Away from the outline rounding errors are all that the filter adds.
    square = np.ones((4 * edge + 1, 4 * edge + 1), np.uint8)
    inner, outer = (change(mask.astype(np.uint8), square) for change in (cv2.erode, cv2.dilate))
    return np.where(inner == outer, hard, alpha)


def _mean(values: np.ndarray, radius: int) -> np.ndarray:
    return cv2.blur(values, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)


def cut_out(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 4) uint8 RGBA: the picture's colours and `alpha` in [0, 1]."""
    return np.dstack([image, np.rint(alpha * 255).astype(np.uint8)])


def blur_background(image: np.ndarray, alpha: np.ndarray, strength: float = 0.03) -> np.ndarray:
    """Put everything with a low alpha out of focus, as a wide lens does.

    The background is averaged over a disc, of background pixels only: the subject's colours do
    not bleed into it.

    Args:
        image: (H, W, 3) uint8.
        alpha: (H, W) in [0, 1], 1 for what stays sharp.
        strength: radius of the disc as a fraction of the shorter side.
    """
    radius = max(round(min(alpha.shape) * strength), 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2).astype(np.float32)
    disc /= disc.sum()
    sharp = image.astype(np.float32)
    weight = 1 - alpha.astype(np.float32)
    total = cv2.filter2D(sharp * weight[..., None], -1, disc, borderType=cv2.BORDER_REFLECT)
    share = cv2.filter2D(weight, -1, disc, borderType=cv2.BORDER_REFLECT)[..., None]
    # Deep inside the subject there is no background to average, and none to be seen.
    blurred = np.where(share > 1e-3, total / np.maximum(share, 1e-3), sharp)
    mixed = sharp * alpha[..., None] + blurred * weight[..., None]
    return np.rint(mixed).clip(0, 255).astype(np.uint8)
