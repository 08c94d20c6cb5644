"""Ids of images that belong to a dataset, so that predictions of them can be scored."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

from detectron2.data import MetadataCatalog

from ..data import Dataset, DatasetError

__all__ = ["KnownImages", "annotation_file"]


def annotation_file(name: str) -> str:
    """The file that numbers a registered dataset's classes and images; empty where it has none."""
    metadata = MetadataCatalog.get(name).as_dict() if name in MetadataCatalog.list() else {}
    return str(metadata.get("json_file") or metadata.get("panoptic_json") or "")


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
            # Loading would draw an embedded dataset that is not there; predictions need none.
            if not os.path.isfile(annotation_file(name)):
                continue
            try:
                records = Dataset.get(name, 1.0).records
            except DatasetError:  # the dataset need not be at hand for predictions
                continue
            found |= {
                os.path.realpath(record["file_name"]): record["image_id"]
                for record in records
                if isinstance(record["image_id"], int)
            }
        return found
