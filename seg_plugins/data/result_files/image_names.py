"""Which image of a dataset the name of a result file means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from ..errors import DatasetError

__all__ = ["ImageNames"]

_SHOWN = 3


class ImageNames:
    """Finds records by file names that were written in another folder, or with another suffix.

    A name is looked for as it stands; then by its last part, with and without suffix, among the
    images, and then among the label files of the truth. Folders before it decide where several
    fit.

    Args:
        name: of the dataset, for messages.
        records: Detectron2's dicts; those without ``file_name`` are found by nothing.
    """

    def __init__(self, name: str, records: Iterable[Mapping[str, Any]]) -> None:
        self._dataset = name
        self._exact: dict[str, int] = {}
        self._images: dict[str, dict[int, tuple[str, ...]]] = {}
        self._labels: dict[str, dict[int, tuple[str, ...]]] = {}
        self._count = 0
        for place, record in enumerate(records):
            self._count += 1
            for key, index in (("file_name", self._images), ("sem_seg_file_name", self._labels)):
                if not record.get(key):
                    continue
                *folders, last = _parts(record[key])
                for known in {last, _stem(last)}:
                    index.setdefault(known, {})[place] = tuple(folders)
                if key == "file_name":
                    self._exact[record[key]] = place

    def find(self, name: str) -> int:
        """The place of the record that a name means.

        Raises:
            DatasetError: no image is called so, or several are.
        """
        if name in self._exact:
            return self._exact[name]
        *folders, last = _parts(name) or [""]
        for index in (self._images, self._labels):
            found = index.get(last) or index.get(_stem(last)) or {}
            depths = {place: _shared(folders, known) for place, known in found.items()}
            best = [place for place, depth in depths.items() if depth == max(depths.values())]
            if len(best) == 1:
                return best[0]
            if best:
                raise DatasetError(
                    f"{name} may be any of {len(best)} images of '{self._dataset}' of this name: "
                    "keep the folders of the images in the names of the results"
                )
        shown = ", ".join(list(self._exact)[:_SHOWN])
        raise DatasetError(
            f"{name} is none of the {self._count} images of '{self._dataset}' ({shown}, ...)"
        )


def _parts(name: str) -> list[str]:
    return list(PurePosixPath(str(name).replace("\\", "/")).parts)


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _shared(one: Iterable[str], two: Iterable[str]) -> int:
    """How many folders, from the last one upwards, two paths share."""
    count = 0
    for a, b in zip(reversed(list(one)), reversed(list(two)), strict=False):
        if a != b:
            break
        count += 1
    return count
