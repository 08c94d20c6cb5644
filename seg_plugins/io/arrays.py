"""Images and labels that are stored as bare arrays: NPY and text."""

from __future__ import annotations

import numpy as np

from .errors import DatasetError

__all__ = ["as_image", "as_label", "read_npy", "read_text"]

# What OpenCV, Pillow and PyTorch all work with; other numbers become float32.
_IMAGE_TYPES = (np.uint8, np.uint16, np.int16, np.float32)
_MAX_CHANNELS = 512  # OpenCV's


def read_npy(file_name: str) -> np.ndarray:
    """Read an array of numbers.

    Raises:
        DatasetError: the file is missing, damaged or holds something else.
    """
    try:
        # A map of the file first: a header alone cannot claim memory.
        stored = np.load(file_name, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DatasetError(f"{file_name}: no such file") from None
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise DatasetError(f"{file_name}: not a readable array ({error})") from None
    if not isinstance(stored, np.ndarray) or stored.dtype.kind not in "biuf" or not stored.size:
        raise DatasetError(f"{file_name}: not an array of numbers")
    return np.array(stored, dtype=stored.dtype.newbyteorder("="))


def read_text(file_name: str) -> np.ndarray:
    """Read a matrix of integers, a line per row.

    Raises:
        DatasetError: the file is missing or holds something else.
    """
    try:
        return np.loadtxt(file_name, dtype=np.int32, ndmin=2)
    except FileNotFoundError:
        raise DatasetError(f"{file_name}: no such file") from None
    except (OSError, ValueError, OverflowError) as error:
        raise DatasetError(f"{file_name}: not a matrix of integers ({error})") from None


def as_image(file_name: str, pixels: np.ndarray, image_format: str) -> np.ndarray:
    """Check an array that is to be an image.

    Returns:
        (H, W, C); three 8-bit channels (or one with "L") unless the format is "raw".

    Raises:
        DatasetError: another number of axes, or values that only "raw" takes.
    """
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3:
        raise DatasetError(
            f"{file_name}: {pixels.ndim} axes where an image has 2 (H, W) or 3 (H, W, C)"
        )
    if pixels.shape[2] > _MAX_CHANNELS:
        raise DatasetError(
            f"{file_name}: {pixels.shape[2]} channels, at most {_MAX_CHANNELS} are possible; split "
            "volumes into slices as datasets/prepare_lits.py does"
        )
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if image_format == "raw":
        return pixels if pixels.dtype in _IMAGE_TYPES else pixels.astype(np.float32)
    channels = 1 if image_format == "L" else 3
    if pixels.dtype != np.uint8 or pixels.shape[2] not in (1, channels):
        raise DatasetError(
            f"{file_name}: {pixels.shape[2]} channels of {pixels.dtype}; only INPUT.FORMAT raw "
            f"takes them as they are, {image_format} means 8-bit pictures"
        )
    return np.repeat(pixels, channels // pixels.shape[2], axis=2)


def as_label(file_name: str, label: np.ndarray, *, color: bool) -> np.ndarray:
    """Check an array that is to be a label.

    Returns:
        (H, W) integers of 16 bits at most or, with `color`, (H, W, 3) uint8.

    Raises:
        DatasetError: another number of axes, fractions, or ids beyond 16 bits.
    """
    if color:
        if label.ndim != 3 or label.shape[2] != 3 or label.dtype != np.uint8:
            raise DatasetError(
                f"{file_name}: {label.shape} of {label.dtype} where colours are expected"
            )
        return label
    if label.ndim != 2 or not label.size:
        raise DatasetError(f"{file_name}: the shape {label.shape} where a label has (H, W)")
    if label.dtype in (np.uint8, np.uint16, np.int16):
        return label
    if label.dtype == bool:
        return label.astype(np.uint8)
    unknown = 0 if label.dtype.kind != "f" else int((~np.isfinite(label)).sum())
    if unknown:
        raise DatasetError(
            f"{file_name}: {unknown} pixels are NaN or infinite where class ids are expected; "
            "store pixels without a class as the ignore label, e.g. 255"
        )
    low, high = label.min(), label.max()
    if not -(1 << 15) <= low <= high < 1 << 16 or (low < 0 and high >= 1 << 15):
        raise DatasetError(f"{file_name}: values from {low} to {high} where class ids are expected")
    ids = label.astype(np.int16 if low < 0 else np.uint16)
    if label.dtype.kind == "f" and not np.array_equal(ids, label):
        raise DatasetError(f"{file_name}: values with fractions where class ids are expected")
    return ids
