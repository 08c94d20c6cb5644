"""Ids of images that belong to a dataset, so that predictions of them can be scored."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

from ..data import DatasetError
from ..data.datasets.catalogue import file_images

__all__ = ["KnownImages"]


@dataclass(frozen=True)
class KnownImages:
    """The images of registered datasets with annotation files.

    Attributes:
        datasets: their names; the first that has an image counts.
    """

    datasets: tuple[str, ...] = ()

    def id_of(self, path: str) -> int | None:
        """The id that an annotation file gives the image at `path`; None where none has it."""
        for name in self.datasets:
            found = _ids(name).get(os.path.realpath(path))
            if found is not None:
                return found
        return None


@cache
def _ids(name: str) -> dict[str, int]:
    try:
        return {os.path.realpath(path): number for path, number in file_images(name).items()}
    except DatasetError:  # the dataset need not be at hand for predictions
        return {}
