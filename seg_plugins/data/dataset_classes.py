"""The classes of a dataset, as its metadata and its annotation file name and number them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .datasets.class_table import spread_colors
from .errors import DatasetError

__all__ = ["Classes", "classes_of"]


@dataclass(frozen=True)
class Classes:
    """The classes of one kind, things or stuff, in the order of their contiguous ids.

    Attributes:
        names: as the dataset spells them.
        colors: (R, G, B) of each; those of Pascal VOC's color map where the dataset has none.
        category_ids: contiguous id -> id in the dataset's annotation file, or itself where there
            is no file.
        numbered: whether a file or the metadata says what the ids are.
    """

    names: tuple[str, ...] = ()
    colors: tuple[tuple[int, int, int], ...] = ()
    category_ids: Mapping[int, int] = field(default_factory=dict)
    numbered: bool = False

    def __len__(self) -> int:
        return len(self.names)


def classes_of(metadata: Mapping[str, Any], kind: str, *, all_listed: bool) -> Classes:
    """The classes of a kind in a dataset's metadata.

    Args:
        metadata: Detectron2's.
        kind: "thing" or "stuff".
        all_listed: the contiguous ids are the places in the list of names.

    Raises:
        DatasetError: a name stands twice.
    """
    names = tuple(map(str, metadata.get(f"{kind}_classes") or ()))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DatasetError(
            f"dataset '{metadata.get('name')}': {kind}_classes lists '{twice[0]}' more than once"
        )
    colors = metadata.get(f"{kind}_colors") or spread_colors(len(names))
    mapping = metadata.get(f"{kind}_dataset_id_to_contiguous_id")
    ids = {place: category for category, place in mapping.items()} if mapping else {}
    if ids and all_listed:
        # A split's file may lack classes; predictions of them get ids that it does not use.
        free = itertools.count(max(ids.values()) + 1)
        ids |= {place: next(free) for place in range(len(names)) if place not in ids}
    return Classes(
        names=names,
        colors=tuple((int(c[0]), int(c[1]), int(c[2])) for c in colors),
        category_ids=ids or {place: place for place in range(len(names))},
        numbered=bool(ids),
    )
