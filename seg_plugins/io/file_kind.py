"""What a file is, told by its first bytes: names lie, and some have no suffix."""

from __future__ import annotations

import gzip
import zlib

from .errors import DatasetError
from .window_names import split_name

__all__ = ["is_lossy", "kind_of"]

_NIFTI_MAGIC, _NIFTI_HEADER = 344, 348
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TEXT = frozenset(b"0123456789+-.eE \t\r\n")


def kind_of(file_name: str) -> str:
    """The format of a file.

    Returns:
        "npy", "nifti", "tiff", "text" (a matrix of numbers) or "picture", which is anything else.
        "window" of the name of a window of a raster.
        A file that its bytes do not tell, because it is damaged, is what its name says.

    Raises:
        DatasetError: the file is missing or cannot be read.
    """
    if split_name(file_name)[1] is not None:
        return "window"
    try:
        with open(file_name, "rb") as file:
            start = file.read(_NIFTI_HEADER)
    except FileNotFoundError:
        raise DatasetError(f"{file_name}: no such file") from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file_name}: not a readable file ({error})") from None
    if start.startswith(b"\x93NUMPY"):
        return "npy"
    if start.startswith(_TIFF):
        return "tiff"
    if _is_nifti(_unpacked(file_name) if start.startswith(b"\x1f\x8b") else start):
        return "nifti"
    if start and _TEXT.issuperset(start):
        return "text"
    return _kind_by_name(file_name.lower()) if _is_unknown(start) else "picture"


def is_lossy(file_name: str) -> bool:
    """Whether a picture is stored by a method that changes its values: JPEG and most WebP."""
    with open(file_name, "rb") as file:
        start = file.read(16)
    return start.startswith(b"\xff\xd8\xff") or (start[:4], start[8:]) == (b"RIFF", b"WEBPVP8 ")


def _unpacked(file_name: str) -> bytes:
    try:
        with gzip.open(file_name) as file:
            return file.read(_NIFTI_HEADER)
    except (OSError, EOFError, zlib.error):
        return b""


def _is_nifti(start: bytes) -> bool:
    return start[_NIFTI_MAGIC:_NIFTI_HEADER] in (b"n+1\0", b"ni1\0")


def _is_unknown(start: bytes) -> bool:
    pictures = (b"\xff\xd8", b"\x89PNG", b"BM", b"GIF8", b"RIFF", b"P1", b"P2", b"P3", b"P4", b"P5",
                b"P6", b"P7")  # fmt: skip
    return not start.startswith(pictures)


def _kind_by_name(name: str) -> str:
    kinds = {".npy": "npy", ".nii": "nifti", ".nii.gz": "nifti", ".txt": "text", ".tif": "tiff",
             ".tiff": "tiff"}  # fmt: skip
    return next((kind for ending, kind in kinds.items() if name.endswith(ending)), "picture")
