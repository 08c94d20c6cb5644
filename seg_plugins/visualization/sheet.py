"""Rows of pictures with titles, captions and a legend: ``pictures.png`` of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..data import Dataset
from . import legend, overlays

# Pixels of a picture, and of the type.
_WIDTH, _TYPE = 320, 14


def sheet(
    rows: Sequence[Mapping[str, np.ndarray]],
    captions: Sequence[str],
    entries: Sequence[legend.Entry],
) -> np.ndarray:
    """Pictures under their titles, each row above its caption, and a legend at the end.

    Args:
        rows: title -> (H, W, 3) uint8 RGB picture.
        captions: of each row.
        entries: of the legend.

    Returns:
        (H, W, 3) uint8.
    """
    parts: list[np.ndarray] = []
    titles: tuple[str, ...] = ()
    for row, caption in zip(rows, captions, strict=True):
        drawn = overlays.grid([list(row.values())], width=_WIDTH)
        if tuple(row) != titles:  # they are the same of most rows
            titles = tuple(row)
            parts.append(legend.line(drawn.shape[1], titles, _TYPE))
        parts += [drawn, legend.line(drawn.shape[1], [caption], _TYPE)]
    width = max(part.shape[1] for part in parts)
    whole = [
        np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in parts
    ]
    return legend.below(np.vstack(whole), entries, _TYPE)


def class_legend(dataset: Dataset, rows: Sequence[Mapping[str, np.ndarray]]) -> list[legend.Entry]:
    """Classes and colours of what is drawn by class; instances have their names beside them."""
    if not any("semantic" in title or "panoptic" in title for row in rows for title in row):
        return []
    classes = zip(dataset.stuff.colors, dataset.stuff.names, strict=False)
    return [((red, green, blue), name) for (red, green, blue), name in classes]
