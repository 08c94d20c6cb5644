"""Label images from PNG files, several times faster than the image libraries decode them.

A label map is long runs of equal pixels, on which libdeflate and filters undone by blocks pay off
most. Only the layouts that labels have are decoded here; the rest is left to Pillow.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import torch
from PIL import Image

from .segmentation_metrics import compiled

try:
    import deflate
except ImportError:  # the standard library's zlib takes several times as long
    deflate = None  # type: ignore[assignment]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE = 0, 2, 3
# Bytes per pixel by bit depth and colour type.
_PIXEL_BYTES = {(8, _GREY): 1, (8, _PALETTE): 1, (16, _GREY): 2, (8, _RGB): 3}


def decode_png(content: bytes) -> np.ndarray | None:
    """The pixels of a PNG file as stored, the values that ``np.asarray(Image.open(...))`` gives.

    Args:
        content: the bytes of the file.

    Returns:
        (H, W) uint8 or uint16 of a grey image, (H, W) uint8 indices of one with a palette, or
        (H, W, 3) uint8 of a colour image. None where Pillow has to decide: another layout
        (interlaced, with alpha, fewer than 8 bits, animated), a damaged or a very large file, or
        no compiled operators.
    """
    header = _plain_header(content)
    packed = _image_data(content) if header else None
    if header is None or packed is None:
        return None
    height, width, pixel_bytes = header
    size = height * (width * pixel_bytes + 1)
    try:
        filtered = torch.frombuffer(_unpack(packed, size), dtype=torch.uint8)
        pixels = torch.ops.seg_plugins.png_unfilter(
            filtered, height, width * pixel_bytes, pixel_bytes
        ).numpy()
    except ValueError:  # damaged, or not as many rows as the header says
        return None
    if pixel_bytes == 2:
        return pixels.view(">u2").astype(np.uint16)
    return pixels if pixel_bytes == 1 else pixels.reshape(height, width, 3)


def _unpack(packed: bytes, size: int) -> bytearray:
    """zlib data of at most `size` bytes; ValueError where it is damaged or longer."""
    if deflate is None:
        try:
            return bytearray(zlib.decompressobj().decompress(packed, size + 1))
        except zlib.error as error:
            raise ValueError(str(error)) from error
    try:
        return deflate.zlib_decompress(packed, size)
    except deflate.DeflateError as error:
        raise ValueError(str(error)) from error


def _plain_header(content: bytes) -> tuple[int, int, int] | None:
    """Height, width and bytes per pixel, where this decoder knows the layout."""
    if not compiled() or len(content) < 33 or content[:8] != _SIGNATURE:
        return None
    if content[12:16] != b"IHDR":  # Apple's variant begins with a chunk of its own
        return None
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", content[16:29])
    pixel_bytes = _PIXEL_BYTES.get((depth, colour))
    limit = Image.MAX_IMAGE_PIXELS or 1 << 31
    if pixel_bytes is None or any(rest) or not 0 < width * height <= limit:
        return None
    return height, width, pixel_bytes


def _image_data(content: bytes) -> bytes | None:
    """The compressed pixels; None for a file that is cut off, damaged or animated."""
    parts: list[bytes] = []
    at = len(_SIGNATURE)
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        end = at + 8 + length
        kind = content[at + 4 : at + 8]
        if kind == b"IEND":
            return b"".join(parts)
        if kind == b"acTL" or end + 4 > len(content):
            return None
        if zlib.crc32(content[at + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            return None
        if kind == b"IDAT":
            parts.append(content[at + 8 : end])
        at = end + 4
    return None
