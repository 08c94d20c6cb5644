"""How well class outlines are met: Boundary IoU, boundary F1 and trimap mIoU, ignore-aware.

All three compare label maps; an ignored pixel is neither counted nor an edge: the edge between a
class and an ignored region is unknown, and what is predicted inside one is not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seg_plugins.ops.segmentation_metrics import label_confusion

import cv2
import numpy as np

from .confusion import divide, mean_iou
from .fixed_point import SCALE, to_fixed

TRIMAP_WIDTHS = (1, 3, 5, 10, 20)


class BoundaryMeasures:
    """Accumulates the three boundary measures over images.

    Args:
        num_classes: K; labels are 0..K-1.
        dilation_ratio: width of Boundary IoU's band as a share of the image diagonal (Cheng et
            al., Boundary IoU, 2021, section 4: 2%).
        tolerance_ratio: distance at which boundary F1 still counts a contour pixel as met, as a
            share of the diagonal (Csurka et al., 2013; SegNet, section 4: 0.75%).
        trimap_widths: half-widths, in pixels, of the bands around the true boundaries in which
            trimap mIoU is measured (DeepLab, 2017, section 4.3).
    """

    def __init__(
        self,
        num_classes: int,
        *,
        dilation_ratio: float = 0.02,
        tolerance_ratio: float = 0.0075,
        trimap_widths: Sequence[int] = TRIMAP_WIDTHS,
    ) -> None:
        self.num_classes = num_classes
        self.dilation_ratio = dilation_ratio
        self.tolerance_ratio = tolerance_ratio
        self.trimap_widths = tuple(trimap_widths)
        self.reset()

    def reset(self) -> None:
        """Forget every image."""
        size = self.num_classes + 1
        self.band_confusion = np.zeros((size, size), np.int64)
        self.trimap_confusions = np.zeros((len(self.trimap_widths), size, size), np.int64)
        # Fixed-point sums of per-image F1, as Python integers: they outgrow 64 bits.
        self.f1_sums = np.zeros(self.num_classes, object)
        self.f1_images = np.zeros(self.num_classes, np.int64)

    def state(self) -> tuple[np.ndarray, ...]:
        """Arrays that add up over processes."""
        return self.band_confusion, self.trimap_confusions, self.f1_sums, self.f1_images

    def set_state(self, state: Sequence[np.ndarray]) -> None:
        """Take over summed states."""
        self.band_confusion, self.trimap_confusions, self.f1_sums, self.f1_images = state

    def add(self, labels: np.ndarray, target: np.ndarray, ignore_label: int) -> None:
        """Add one image.

        Args:
            labels: (H, W) predicted classes.
            target: (H, W) classes or `ignore_label`.
            ignore_label: value of `target` that is not scored.
        """
        void = self.num_classes
        truth = np.where(target == ignore_label, void, target).astype(np.int32)
        guess = np.where(truth == void, void, labels).astype(np.int32)
        guess[labels == ignore_label] = void
        diagonal = float(np.hypot(*target.shape))
        self._add_band(guess, truth, max(1, round(self.dilation_ratio * diagonal)))
        for i, width in enumerate(self.trimap_widths):
            near = np.where(near_another_class(truth, void, width), truth, void)
            self.trimap_confusions[i] += label_confusion(guess, near, void, void)
        self._add_f1(guess, truth, self.tolerance_ratio * diagonal)

    def scores(self, class_names: Sequence[str]) -> dict[str, float]:
        """Percentages: mBoundaryIoU, mBoundaryF1, TrimapIoU@<w>px and the first two per class.

        Boundary IoU sums bands over the data set, boundary F1 is averaged over the images that
        have a contour of the class (true or predicted), then over classes.
        """
        shared = self.band_confusion.diagonal()[:-1].astype(float)
        truth = self.band_confusion[:-1].sum(axis=1)
        union = truth + self.band_confusion[:, :-1].sum(axis=0) - shared
        iou = divide(shared, np.where(truth > 0, union, 0))
        f1_sums = np.array([total / SCALE for total in self.f1_sums], float)
        f1 = divide(f1_sums, self.f1_images)
        scores: dict[str, Any] = {
            "mBoundaryIoU": divide(np.nansum(iou), np.count_nonzero(union)),
            "mBoundaryF1": divide(np.nansum(f1), np.count_nonzero(self.f1_images)),
        }
        for width, confusion in zip(self.trimap_widths, self.trimap_confusions, strict=True):
            scores[f"TrimapIoU@{width}px"] = mean_iou(confusion)
        for metric, values in (("BoundaryIoU", iou), ("BoundaryF1", f1)):
            scores |= {f"{metric}-{n}": v for n, v in zip(class_names, values, strict=True)}
        return {key: 100 * float(value) for key, value in scores.items()}

    def _add_band(self, guess: np.ndarray, truth: np.ndarray, width: int) -> None:
        void = self.num_classes

        def band_of(labels: np.ndarray) -> np.ndarray:
            band = near_another_class(labels, void, width)
            # As in the paper's code, what lies outside the image is outside every class.
            band[:width] = band[-width:] = True
            band[:, :width] = band[:, -width:] = True
            return np.where(band, labels, void)

        self.band_confusion += label_confusion(band_of(guess), band_of(truth), void, void)

    def _add_f1(self, guess: np.ndarray, truth: np.ndarray, tolerance: float) -> None:
        void = self.num_classes
        contours = [np.where(has_other_neighbour(x, void), x, void) for x in (guess, truth)]
        counts = [np.bincount(x.reshape(-1), minlength=void + 1)[:void] for x in contours]
        for k in np.flatnonzero(counts[0] + counts[1]):
            self.f1_images[k] += 1
            if not (counts[0][k] and counts[1][k]):
                continue  # a contour that is missed altogether, or made up, scores 0
            found, wanted = _crop(contours[0] == k, contours[1] == k)
            precision = _share_within(found, wanted, tolerance)
            recall = _share_within(wanted, found, tolerance)
            if precision + recall > 0:
                self.f1_sums[k] += to_fixed(2 * precision * recall / (precision + recall))


def near_another_class(labels: np.ndarray, void: int, width: int) -> np.ndarray:
    """Pixels with a pixel of another class in the square of side 2 * width + 1 around them.

    Within the square the largest label differs from the smallest exactly where two classes meet;
    one erosion of the label map alone, as a grey image, would miss the side of the smaller label.

    Args:
        labels: (H, W) int32 classes 0..void-1, or `void`.
        void: the value that is no class.
        width: reach in pixels.
    """
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    kind = np.uint8 if void < 255 else np.int16 if void < 32767 else np.float32
    empty = labels == void
    # OpenCV's default border never wins a maximum or a minimum.
    largest = cv2.dilate(np.where(empty, 0, labels).astype(kind), square)
    smallest = cv2.erode(np.where(empty, void, labels).astype(kind), square)
    return (largest > smallest) & ~empty


def has_other_neighbour(labels: np.ndarray, void: int) -> np.ndarray:
    """Pixels of a class with an edge to another class; `void` gives no edge."""
    edge = np.zeros(labels.shape, bool)
    for one, two in (
        ((slice(1, None),), (slice(None, -1),)),
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
    ):
        differs = (labels[one] != labels[two]) & (labels[one] != void) & (labels[two] != void)
        edge[one] |= differs
        edge[two] |= differs
    return edge


def _crop(*masks: np.ndarray) -> list[np.ndarray]:
    """The masks cut to the smallest box that holds the set pixels of all of them."""
    union = np.logical_or.reduce(masks)
    rows, columns = np.flatnonzero(union.any(axis=1)), np.flatnonzero(union.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return [mask[box] for mask in masks]


def _share_within(points: np.ndarray, targets: np.ndarray, distance: float) -> float:
    """Share of `points` whose Euclidean distance to `targets` is at most `distance`."""
    to_target = cv2.distanceTransform(
        (~targets).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
    )
    return float(np.count_nonzero(to_target[points] <= distance) / np.count_nonzero(points))
