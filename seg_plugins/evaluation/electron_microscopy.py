"""Membranes in electron microscopy: pixel, Rand, information and warping error (ISBI 2012)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seg_plugins.ops.homotopic_warp import homotopic_warp

import numpy as np
import torch

from ..data import Dataset
from .confusion import divide
from .errors import EvaluationError
from .fixed_point import SCALE, to_fixed
from .rand_measures import agreement, regions
from .semantic import SemanticEvaluator

THRESHOLDS = np.round(np.arange(0.1, 0.95, 0.1), 1)
# Means over the images; all are summed in fixed point.
_MEANS = ("rand", "rand_thinned", "information", "information_thinned", "variation", "warping")
# The variation of information may exceed 1: it is summed in units of 64 nats.
_UNIT = {"variation": 64.0}


class ElectronMicroscopyEvaluator(SemanticEvaluator):
    """The semantic figures and, under ``em``, the errors of the ISBI 2012 challenge (0..1).

    ==============================  ===========================================================
    PixelError                      share of pixels on the wrong side at threshold 0.5
    PixelFError                     1 - the best F-score of "inside a cell" over the thresholds
    RandError                       1 - the best foreground-restricted Rand F-score
    RandErrorThinned                the same after thinning the proposed membranes to one pixel
    InformationError, ...Thinned    1 - the best information-theoretic F-score
    VariationOfInformation          the lowest over the thresholds, in nats
    WarpingError                    the lowest share of pixels that still differ after the truth
                                    is warped towards the proposal (topological errors only)
    ==============================  ===========================================================

    Thresholds 0.1 ... 0.9 are put on the probability of "inside a cell": the softmax of the
    scores, or the scores where they are probabilities already. Rand, information and warping are
    averaged over the slices before the best threshold is taken. Regions are 4-connected; thinning
    and warping flip simple points only (see :mod:`seg_plugins.ops.homotopic_warp`).

    Args:
        dataset_name: as for :class:`SemanticEvaluator`; the metadata's ``cell_class`` names the
            class inside of cells ("cell" unless set).
        output_dir: folder for the result files; None writes nothing.
        **options: of :class:`SemanticEvaluator`.
    """

    lower_is_better = frozenset(
        f"em/{name}"
        for name in (
            "PixelError",
            "PixelFError",
            "RandError",
            "RandErrorThinned",
            "InformationError",
            "InformationErrorThinned",
            "VariationOfInformation",
            "WarpingError",
        )
    )

    def __init__(
        self, dataset_name: str | Dataset, output_dir: str | Path | None = None, **options: Any
    ) -> None:
        dataset = Dataset.get(dataset_name)
        name = dataset.metadata.get("cell_class", "cell")
        if name not in dataset.stuff.names:
            raise EvaluationError(
                f"'{dataset.name}' has no class '{name}' (classes: {list(dataset.stuff.names)}); "
                "set 'cell_class' in its metadata."
            )
        self._cell = dataset.stuff.names.index(name)
        super().__init__(dataset, output_dir, **options)

    def reset(self) -> None:
        """Forget everything seen; called before each round of evaluation."""
        super().reset()
        # Per threshold: pixels that are cell in both, in the proposal, in the truth, in neither.
        self._pixels = np.zeros((len(THRESHOLDS), 4), np.int64)
        self._sums = np.zeros((len(_MEANS), len(THRESHOLDS)), object)
        self._images = np.zeros(2, np.int64)  # all, and those with a cell

    def add_measures(
        self, position: int, prediction: torch.Tensor, labels: np.ndarray, target: np.ndarray
    ) -> None:
        """Add one slice."""
        known = target != self.ignore_label
        cell = (target == self._cell) & known
        true_regions = regions(cell)
        probability = self._probability(prediction, labels)
        self._images += 1, bool(true_regions.any())
        for step, threshold in enumerate(THRESHOLDS):
            found = (probability > threshold) & known
            self._pixels[step] += (
                np.count_nonzero(found & cell),
                np.count_nonzero(found),
                np.count_nonzero(cell),
                np.count_nonzero(known & ~found & ~cell),
            )
            warped = homotopic_warp(cell, found, known)
            self._add("warping", step, np.count_nonzero((warped != found) & known) / known.size)
            thinned = homotopic_warp(found, known, known)
            for suffix, proposal in (("", found), ("_thinned", thinned)):
                scores = agreement(true_regions, regions(proposal))
                if scores is None:
                    continue
                self._add("rand" + suffix, step, scores.rand)
                self._add("information" + suffix, step, scores.information)
                if not suffix:
                    self._add("variation", step, scores.variation)

    def local_state(self) -> Any:
        """The sums of this process."""
        return super().local_state(), self._pixels, self._sums, self._images

    def summarize(self, states: Sequence[Any]) -> dict[str, dict[str, float]]:
        """The semantic figures, and the errors at their best thresholds."""
        results = super().summarize([state for state, *_ in states])
        parts = zip(*(state[1:] for state in states), strict=True)
        pixels, sums, (images, with_cells) = (np.sum(part, axis=0) for part in parts)
        both, found, true, neither = pixels.T
        middle = int(np.argmin(np.abs(THRESHOLDS - 0.5)))
        labelled = found + true - both + neither
        mean = {
            name: divide(
                [_UNIT.get(name, 1.0) * (total / SCALE) for total in row],
                images if name == "warping" else with_cells,
            )
            for name, row in zip(_MEANS, sums, strict=True)
        }
        results["em"] = {
            "PixelError": float(divide(found + true - 2 * both, labelled)[middle]),
            "PixelFError": float(1 - np.max(divide(2 * both, found + true))),
            "RandError": float(1 - mean["rand"].max()),
            "RandErrorThinned": float(1 - mean["rand_thinned"].max()),
            "InformationError": float(1 - mean["information"].max()),
            "InformationErrorThinned": float(1 - mean["information_thinned"].max()),
            "VariationOfInformation": float(mean["variation"].min()),
            "WarpingError": float(mean["warping"].min()),
        }
        return results

    def _add(self, name: str, step: int, value: float) -> None:
        self._sums[_MEANS.index(name), step] += to_fixed(value / _UNIT.get(name, 1.0))

    def _probability(self, prediction: torch.Tensor, labels: np.ndarray) -> np.ndarray:
        """(H, W) probability of "inside a cell"; 0 or 1 for a label map."""
        if prediction.ndim == 2:
            return (labels == self._cell).astype(np.float32)
        scores = prediction.detach().float()
        if len(scores) == 1:  # the logit of class 1
            scores = torch.cat([-scores, scores]).sigmoid()
        sums = scores.sum(dim=0)
        if scores.min() < 0 or not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
            scores = scores.softmax(dim=0)
        return scores[self._cell].cpu().numpy()
