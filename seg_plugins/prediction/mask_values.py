"""The values that pixels have in masks of classes: class ids, the dataset's own, or 0 and 255."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import PredictionError
from .labels import Labels

# What OutputOptions.values may be.
CHOICES = ("class", "dataset", "255")

_MOST = (1 << 16) - 1


@dataclass(frozen=True)
class MaskValues:
    """What is written for each class.

    Attributes:
        of_class: (K,) value of each class.
        nothing: of pixels that belong to no class.
        nodata: `nothing` where it stands for no class, to be declared in TIFFs; else None.
        dtype: the narrowest type that holds them, uint8 or uint16.
    """

    of_class: np.ndarray
    nothing: int
    nodata: int | None
    dtype: type[np.unsignedinteger]

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """(H, W) class ids to values; ids of no class are nothing."""
        table = np.full(np.iinfo(ids.dtype).max + 1, self.nothing, self.dtype)
        table[: len(self.of_class)] = self.of_class
        return table[ids]


def mask_values(labels: Labels, choice: str) -> MaskValues:
    """The values of a model's classes.

    Args:
        labels: of the model.
        choice: "class" for class ids; "dataset" for the values of the dataset's label files, or
            its category ids in panoptic ones; "255" for 0 and 255 of two classes, or of nothing
            and any instance, see :func:`binary`.

    Raises:
        PredictionError: an unknown choice, or one that these classes cannot have.
    """
    if choice not in CHOICES:
        raise PredictionError(f"mask values '{choice}'; there are: {', '.join(CHOICES)}")
    if not labels.stuff and choice == "dataset":
        raise PredictionError(
            "mask values of the dataset are of classes by pixel; this system finds instances, "
            "which its masks number: leave --mask-values out"
        )
    if not labels.stuff:  # numbers of instances
        return MaskValues(np.zeros(0, np.uint8), 0, None, np.uint8)
    if choice == "255":
        if len(labels.stuff) != 2:
            raise PredictionError(
                f"mask values 255 are of two classes; this model has {len(labels.stuff)}: take "
                "--mask-values class"
            )
        return MaskValues(np.array([0, 255], np.uint8), 0, None, np.uint8)
    values = list(range(len(labels.stuff))) if choice == "class" else _of_dataset(labels)
    nothing = labels.ignore_label
    if nothing in values:  # a class of the dataset: the highest number that is free
        top = 255 if max(values) < 256 else _MOST
        nothing = max(set(range(top + 1)) - set(values), default=_MOST)
    dtype = np.uint8 if max([*values, nothing]) < 256 else np.uint16
    return MaskValues(np.array(values, dtype), nothing, nothing, dtype)


def binary(numbers: np.ndarray, choice: str) -> np.ndarray:
    """(H, W) numbers of instances as they are or, for the choice "255", as 0 and 255."""
    return np.where(numbers > 0, 255, 0).astype(np.uint8) if choice == "255" else numbers


def _of_dataset(labels: Labels) -> list[int]:
    if labels.stored is None:
        raise PredictionError(
            "mask values of the dataset: its labels hold colours, no numbers; --save color gives "
            "the classes' colours"
        )
    values = list(labels.stored) or [label.category_id for label in labels.stuff]
    twice = {value for value in values if values.count(value) > 1}
    if twice or max(values) > _MOST:
        reason = f"several classes have the id {min(twice)}" if twice else "ids beyond 16 bits"
        raise PredictionError(f"mask values of the dataset: {reason}: take --mask-values class")
    return values
