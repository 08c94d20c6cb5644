"""COCO's panoptic PNG: the id of a segment in the three bytes of a colour, R + 256 G + 65536 B."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from .errors import DatasetError
from .file_kind import kind_of
from .images import open_image, read_label

__all__ = ["read_segment_colors", "read_segment_ids", "write_segment_ids"]


def read_segment_colors(file_name: str) -> np.ndarray:
    """Read the (H, W, 3) uint8 colours that stand for segments.

    Raises:
        DatasetError: the file cannot be read, or has no colours.
    """
    if kind_of(file_name) != "npy":
        with open_image(file_name) as image:
            if image.mode not in ("RGB", "RGBA", "P"):
                raise DatasetError(
                    f"{file_name}: a panoptic label image has three 8-bit channels; this one is of "
                    f"Pillow's mode {image.mode}"
                )
    return read_label(file_name, color=True)


def read_segment_ids(file_name: str) -> np.ndarray:
    """Read (H, W) uint32 segment ids; 0 is void. Errors as above."""
    red, green, blue = np.moveaxis(read_segment_colors(file_name).astype(np.uint32), 2, 0)
    return red | green << 8 | blue << 16


def write_segment_ids(path: Path, ids: np.ndarray) -> None:
    """Write an (H, W) map of ids below 2**24; the folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colors = ids[:, :, None].astype(np.int64) >> np.array([0, 8, 16]) & 255
    Image.fromarray(colors.astype(np.uint8)).save(path)
