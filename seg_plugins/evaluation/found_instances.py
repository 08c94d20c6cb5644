"""Detections of many images: numbers and run lengths alone, on disk where there are many."""

from __future__ import annotations

import shutil
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from tempfile import SpooledTemporaryFile
from typing import Any

from seg_plugins.ops.run_length import RunLengthMasks, mask_areas

import numpy as np

from .errors import EvaluationError

#: Bytes of numbers, and as many of run lengths, from which on a temporary file takes them.
IN_MEMORY = 64 * 2**20
# The columns of the engine's rows: image, x, y, width, height, score, category.
_IMAGE, _BOX, _SCORE, _CATEGORY = 0, slice(1, 5), 5, 6
_RECORD = np.dtype([("row", "f8", 7), ("area", "i8"), ("length", "i8")])


@dataclass(frozen=True)
class FoundPart:
    """D detections of some images, image by image.

    Attributes:
        records: (D,) of the engine's row, and of masks the area in pixels and the string's length.
        text: the masks' compressed run lengths, back to back.
    """

    records: np.ndarray = field(default_factory=lambda: np.zeros(0, _RECORD))
    text: bytes = b""

    @cached_property
    def rows(self) -> np.ndarray:
        """(D, 7) float64 as the engine takes them: ids of images and categories from 1 on."""
        return np.ascontiguousarray(self.records["row"])

    @property
    def positions(self) -> np.ndarray:
        """(D,) int64: of the images among :attr:`CocoTruth.image_ids`."""
        return self.rows[:, _IMAGE].astype(np.int64) - 1

    @property
    def categories(self) -> np.ndarray:
        """(D,) int64 indices of :attr:`CocoTruth.class_names`."""
        return self.rows[:, _CATEGORY].astype(np.int64) - 1

    @property
    def scores(self) -> np.ndarray:
        """(D,) float64."""
        return self.rows[:, _SCORE]

    @property
    def boxes(self) -> np.ndarray:
        """(D, 4) float64 x, y, width, height in pixels."""
        return self.rows[:, _BOX]

    def rle_masks(self, sizes: Mapping[int, tuple[int, int]]) -> list[dict[str, Any]]:
        """COCO RLE dicts of all masks; `sizes` are height and width of the images by position."""
        text = self.text.decode("ascii")
        ends = np.cumsum(self.records["length"]).tolist()
        images = self.positions.tolist()
        return [
            {"size": sizes[image], "counts": text[start:end]}
            for image, start, end in zip(images, [0, *ends], ends, strict=False)
        ]


class FoundInstances:
    """What the engine scores at the end: 72 bytes a detection, and the run lengths of its mask.

    Above :data:`IN_MEMORY` they go to a temporary file (in ``TMPDIR``) that has no name and ends
    with the object.

    Attributes:
        with_masks: an image came with masks; True also where it had no detection.
    """

    def __init__(self) -> None:
        self.with_masks = False
        # Detections of each image that has any, in the order in which they came.
        self._images = array("q")
        self._records, self._text = _spool(), _spool()

    def __len__(self) -> int:
        return sum(self._images)

    def __del__(self) -> None:
        self._records.close()
        self._text.close()

    def add(
        self,
        position: int,
        boxes: np.ndarray,
        scores: np.ndarray,
        categories: np.ndarray,
        masks: RunLengthMasks | None,
    ) -> None:
        """Add the N detections of one image, in the model's order, which breaks ties.

        Args:
            position: of the image among :attr:`CocoTruth.image_ids`.
            boxes: (N, 4) x, y, width, height in pixels.
            scores: (N,).
            categories: (N,) indices of :attr:`CocoTruth.class_names`.
            masks: N masks; None from a model without.

        Raises:
            EvaluationError: masks in some images only.
            ValueError: run lengths that are no mask of this size.
        """
        records = np.zeros(len(scores), _RECORD)
        rows = records["row"]
        rows[:, _IMAGE] = position + 1
        rows[:, _BOX] = boxes
        rows[:, _SCORE] = scores
        rows[:, _CATEGORY] = categories + 1
        if masks is not None:
            if self._images and not self.with_masks:
                raise EvaluationError("detections with pred_masks, while other images had none.")
            records["area"] = mask_areas(masks)
            records["length"] = masks.offsets[1:] - masks.offsets[:-1]
            self.with_masks = True
            self._text.write(masks.data.tobytes())
        elif len(rows) and self.with_masks:
            raise EvaluationError("detections without pred_masks, while other images had them.")
        if len(rows):
            self._records.write(records.tobytes())
            self._images.append(len(rows))

    def parts(self, most: int) -> Iterator[FoundPart]:
        """All detections in parts of whole images: of `most` detections or fewer, or one image."""
        ends = np.cumsum(np.frombuffer(self._images, np.int64)) if self._images else np.zeros(0)
        image = start = at = 0
        while image < len(ends):
            image = max(image + 1, int(np.searchsorted(ends, start + most, side="right")))
            end = int(ends[image - 1])
            self._records.seek(start * _RECORD.itemsize)
            read = self._records.read((end - start) * _RECORD.itemsize)
            records = np.frombuffer(read, _RECORD)
            length = int(records["length"].sum())
            self._text.seek(at)
            yield FoundPart(records, self._text.read(length))
            start, at = end, at + length

    def whole(self) -> FoundPart:
        """All detections at once."""
        return next(self.parts(len(self)), FoundPart())

    def numbers(self) -> FoundPart:
        """The same without the run lengths."""
        self._records.seek(0)
        return FoundPart(np.frombuffer(self._records.read(), _RECORD))

    @classmethod
    def merged(cls, states: Sequence[FoundInstances]) -> FoundInstances:
        """The detections of all processes.

        Raises:
            EvaluationError: masks from some processes only.
        """
        if len(states) == 1:
            return states[0]
        found = cls()
        found.with_masks = any(state.with_masks for state in states)
        for state in states:
            if len(state) and found.with_masks and not state.with_masks:
                raise EvaluationError("detections without pred_masks, while other images had them.")
            found._images.extend(state._images)
            for ours, theirs in ((found._records, state._records), (found._text, state._text)):
                theirs.seek(0)
                shutil.copyfileobj(theirs, ours)
        return found

    def __getstate__(self) -> tuple[bool, array, bytes, bytes]:
        """To be sent to another process."""
        for file in (self._records, self._text):
            file.seek(0)
        return self.with_masks, self._images, self._records.read(), self._text.read()

    def __setstate__(self, state: tuple[bool, array, bytes, bytes]) -> None:
        self.with_masks, self._images, records, text = state
        self._records, self._text = _spool(), _spool()
        self._records.write(records)
        self._text.write(text)


def _spool() -> SpooledTemporaryFile:
    return SpooledTemporaryFile(max_size=IN_MEMORY)
