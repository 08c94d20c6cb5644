"""What all mappers share: reading the image, and the generator of a call."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .decoded_cache import DecodedCache
from .errors import DatasetError
from .image_io import read_image

__all__ = ["check_size", "generator", "image_to_tensor", "read_sample_image"]


def generator(rng: np.random.Generator | None) -> np.random.Generator:
    """`rng`, or a fresh one from NumPy's global state, which data loader workers seed."""
    return rng if rng is not None else np.random.default_rng(np.random.randint(2**31, size=4))


def read_sample_image(
    sample: dict[str, Any], image_format: str, cache: DecodedCache | None = None
) -> np.ndarray:
    """Read ``file_name`` and note or check ``height`` and ``width``.

    Raises:
        DatasetError: the file is unreadable or of another size than the dataset says.
    """
    name = sample["file_name"]
    if cache is None:
        image = read_image(name, image_format)
    else:
        image = cache.get(name, image_format, lambda: read_image(name, image_format))
    height, width = image.shape[:2]
    expected = sample.setdefault("height", height), sample.setdefault("width", width)
    if (height, width) != expected:
        raise DatasetError(
            f"{sample['file_name']}: the image is {height}x{width} (height x width), its "
            f"annotation says {expected[0]}x{expected[1]}"
        )
    return image


def check_size(label: np.ndarray, image: np.ndarray, sample: dict[str, Any], key: str) -> None:
    """Raise DatasetError where image and label differ in size."""
    if label.shape[:2] != image.shape[:2]:
        raise DatasetError(
            f"{sample[key]}: the label is {label.shape[0]}x{label.shape[1]} (height x width), "
            f"its image {sample['file_name']} is {image.shape[0]}x{image.shape[1]}"
        )


def image_to_tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, C) array -> (C, H, W) tensor; 16-bit values become float32."""
    if image.dtype not in (np.uint8, np.float32):
        image = image.astype(np.float32)
    pixels = np.ascontiguousarray(image.transpose(2, 0, 1))
    # One channel comes through as it was read: from a decoder or a cache that own the memory.
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
