"""Ids of images that belong to a dataset, so that predictions of them can be scored."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

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
        return self._ids.get(os.path.realpath(path)) if path else None

    @cached_property
    def _ids(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for name in reversed(self.datasets):
            try:
                images = file_images(name)
            except DatasetError:  # the dataset need not be at hand for predictions
                continue
            found |= {os.path.realpath(path): number for path, number in images.items()}
        return found
