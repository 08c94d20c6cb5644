"""Which detections found an object and which are mistakes: all that AP of a set of images needs.

Matching is done within an image, so it stays as it is when images are left out or counted twice;
only the order by score and the sums change.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ..io.files import write_atomically
from .average_precision import IOU_THRESHOLDS
from .errors import EvaluationError

_COLUMNS = ("image", "category", "hit", "miss", "tied")


@dataclass(frozen=True)
class Matches:
    """D detections by category, best score first; ties by image, then in the model's order.

    Attributes:
        image: (D,) int32 position of the image.
        category: (D,) int32 index of the class, ascending.
        hit: (D,) uint16; bit t is set where it found an object at ``IOU_THRESHOLDS[t]``.
        miss: (D,) uint16; bit t is set where it is a mistake there. Neither: it met a crowd.
        tied: (D,) bool: image, class and score are those of the detection before it.
    """

    image: np.ndarray
    category: np.ndarray
    hit: np.ndarray
    miss: np.ndarray
    tied: np.ndarray

    @classmethod
    def sorted(
        cls,
        image: np.ndarray,
        category: np.ndarray,
        score: np.ndarray,
        hit: np.ndarray,
        miss: np.ndarray,
    ) -> Matches:
        """The detections that count anywhere, from columns that keep each image's own order."""
        counts = np.flatnonzero(hit | miss)
        order = counts[np.lexsort((image[counts], -score[counts], category[counts]))]
        image, category, score = image[order], category[order], score[order]
        tied = np.zeros(len(order), bool)
        same = [column[1:] == column[:-1] for column in (image, category, score)]
        tied[1:] = np.logical_and.reduce(same)
        columns = image.astype(np.int32), category.astype(np.int32), hit[order], miss[order]
        return cls(*columns, tied)

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(D,) bool each: hits and mistakes at ``IOU_THRESHOLDS[step]``."""
        bit = np.uint16(1 << step)
        return (self.hit & bit) > 0, (self.miss & bit) > 0


@dataclass(frozen=True)
class MatchedImages:
    """The matches of a dataset's I images.

    Attributes:
        images: I names, ascending in the ids by which COCO breaks ties.
        classes: K names.
        truth_image: (G,) int32 position of the image of each object that counts.
        truth_category: (G,) int32 its class.
        kinds: ``bbox`` and, with masks, ``segm`` -> their matches.
    """

    images: Sequence[str]
    classes: Sequence[str]
    truth_image: np.ndarray
    truth_category: np.ndarray
    kinds: Mapping[str, Matches]

    def save(self, path: Path) -> None:
        """Write ``.npz``: at most 13 bytes a detection of each kind and 8 an object."""
        arrays: dict[str, np.ndarray] = {
            "images": np.array(self.images, np.str_),
            "classes": np.array(self.classes, np.str_),
            "truth_image": self.truth_image,
            "truth_category": self.truth_category,
            "kinds": np.array(list(self.kinds), np.str_),
        }
        for kind, matches in self.kinds.items():
            arrays |= {f"{kind}_{column}": getattr(matches, column) for column in _COLUMNS}
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **arrays)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write(content.getbuffer()))

    @classmethod
    def load(cls, path: Path) -> MatchedImages:
        """Read what :meth:`save` wrote.

        Raises:
            EvaluationError: the file is damaged or another's.
        """
        try:
            with np.load(path, allow_pickle=False) as found:
                return cls(
                    images=found["images"].tolist(),
                    classes=found["classes"].tolist(),
                    truth_image=found["truth_image"],
                    truth_category=found["truth_category"],
                    kinds={
                        kind: Matches(*(found[f"{kind}_{column}"] for column in _COLUMNS))
                        for kind in found["kinds"].tolist()
                    },
                )
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise EvaluationError(
                f"{path} is no file of matches ({error}): evaluate again to write it anew."
            ) from error


def flag_bits(flags: np.ndarray) -> np.ndarray:
    """(T, D) bool as (D,) uint16, a bit for each of T = 10 thresholds."""
    bits = np.zeros(flags.shape[1], np.uint16)
    for step in range(len(IOU_THRESHOLDS)):
        bits |= flags[step].astype(np.uint16) << np.uint16(step)
    return bits
