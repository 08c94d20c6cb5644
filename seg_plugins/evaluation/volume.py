"""Volumes in slices: Dice of each volume, however its slices come."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from seg_plugins.ops.segmentation_metrics import label_confusion

import numpy as np
import torch

from ..data.result_files.label_maps import slice_of
from .confusion import divide
from .errors import EvaluationError
from .semantic import SemanticEvaluator


class VolumeEvaluator(SemanticEvaluator):
    """The semantic figures and, under ``volume``, Dice in percent.

    ``mDice`` and ``Dice-<class>`` are means over volumes (a volume in which a class neither occurs
    nor is predicted does not count for it), ``DiceGlobal-<class>`` counts all voxels together.
    Slices of a volume may come in any order and in different processes; memory is three counts
    per volume and class.

    The volume of a slice is its dict's ``volume_id``, or else its file name up to the number of
    the slice (``volume-105_0012.npy``). Arguments as :class:`SemanticEvaluator`.
    """

    def reset(self) -> None:
        """Forget everything seen; called before each round of evaluation."""
        super().reset()
        # By volume: (3, K) voxels that are right, predicted, true.
        self._volumes: dict[Hashable, np.ndarray] = {}
        self._each: dict[str, dict[str, float | None]] = {}

    def add_measures(
        self, position: int, prediction: torch.Tensor, labels: np.ndarray, target: np.ndarray
    ) -> None:
        """Add one slice to its volume."""
        volume = volume_of(self._truth.record(position))
        confusion = label_confusion(labels, target, self.num_classes, self.ignore_label)[:-1]
        counts = np.stack(
            [
                confusion.diagonal()[: self.num_classes],
                confusion.sum(axis=0)[:-1],
                confusion.sum(axis=1),
            ]
        )
        self._volumes[volume] = self._volumes.get(volume, 0) + counts

    def local_state(self) -> Any:
        """The sums of this process."""
        return super().local_state(), self._volumes

    def summarize(self, states: Sequence[Any]) -> dict[str, dict[str, float]]:
        """The semantic figures, and Dice of the volumes of all processes."""
        results = super().summarize([state for state, _ in states])
        volumes: dict[Hashable, np.ndarray] = {}
        for _, part in states:
            for volume, counts in part.items():
                volumes[volume] = volumes.get(volume, 0) + counts
        # In a fixed order, so that the mean does not depend on who saw what first.
        names = sorted(volumes, key=str)
        counts = np.array([volumes[volume] for volume in names])
        counts = counts.reshape(-1, 3, self.num_classes)
        each = divide(2 * counts[:, 0], counts[:, 1] + counts[:, 2])
        self._each = {
            str(name): {
                one: None if np.isnan(dice) else round(100 * float(dice), 4)
                for one, dice in zip(self.class_names, row, strict=True)
            }
            for name, row in zip(names, each, strict=True)
        }
        known = ~np.isnan(each)
        mean = divide(np.where(known, each, 0).sum(axis=0), known.sum(axis=0))
        total = counts.sum(axis=0)
        whole = divide(2 * total[0], total[1] + total[2])
        scores = {"mDice": divide(np.nansum(mean), np.count_nonzero(~np.isnan(mean)))}
        scores |= {f"Dice-{n}": v for n, v in zip(self.class_names, mean, strict=True)}
        scores |= {f"DiceGlobal-{n}": v for n, v in zip(self.class_names, whole, strict=True)}
        results["volume"] = {key: 100 * float(value) for key, value in scores.items()}
        return results

    def extra_json(self) -> dict[str, Any]:
        """Also ``volumes``: Dice in percent of each volume and class; None where there is none."""
        return super().extra_json() | {"volumes": self._each}


def volume_of(record: Mapping[str, Any]) -> Hashable:
    """The volume that a slice belongs to."""
    if "volume_id" in record:
        return record["volume_id"]
    place = slice_of(record["file_name"])
    if place is None:
        raise EvaluationError(
            "its record has no volume_id, and its file is not named <volume>_<slice number>."
        )
    return place[0]
