"""Reading NIfTI-1, the format of medical volumes, without further packages."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from .errors import DatasetError

__all__ = ["read_nifti"]

# 2048 slices of 512x512; more is refused from the header.
MAX_VALUES = 1 << 29
_HEADER_BYTES = 352
_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4",
    1024: "i8", 1280: "u8",
}  # fmt: skip


def read_nifti(file_name: str | Path) -> np.ndarray:
    """Read a NIfTI-1 volume, packed by gzip or not.

    Returns:
        (z, y, x) values in the machine's byte order: as stored, or float32 where the header has a
        slope and a shift. The orientation matrix is not applied.

    Raises:
        DatasetError: the file is missing, damaged, too large or of another kind.
    """
    path = Path(file_name)
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            return _read(file)
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: damaged file ({error})") from None
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None


def _read(file: BufferedIOBase) -> np.ndarray:
    header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES or header[344:346] != b"n+":
        raise DatasetError("not a NIfTI-1 volume in one file")
    order = "<" if struct.unpack_from("<i", header)[0] == 348 else ">"
    count, *sizes = struct.unpack_from(order + "8h", header, 40)
    if not 2 <= count <= 7 or min(sizes[:count]) < 1 or math.prod(sizes[3:count]) != 1:
        raise DatasetError(f"the sizes {sizes[: max(count, 0)]} are not those of one volume")
    x, y, z = (*sizes[:count], 1)[:3]
    if x * y * z > MAX_VALUES:
        raise DatasetError(f"{x}x{y}x{z} values are more than the limit of {MAX_VALUES}")
    code = struct.unpack_from(order + "h", header, 70)[0]
    if code not in _TYPES:
        raise DatasetError(f"NIfTI datatype {code} is not supported; known are {sorted(_TYPES)}")
    offset, slope, shift = struct.unpack_from(order + "3f", header, 108)
    if not _HEADER_BYTES <= offset <= 1 << 24:
        raise DatasetError(f"the values start at {offset}, which is not after the header")
    file.read(int(offset) - _HEADER_BYTES)
    kind = np.dtype(order + _TYPES[code])
    content = file.read(x * y * z * kind.itemsize)
    if len(content) < x * y * z * kind.itemsize:
        raise DatasetError("the file is truncated")
    values = np.frombuffer(content, kind).reshape(z, y, x).astype(kind.newbyteorder("="))
    # A slope of 0 means "not scaled", and so does one that is no number, which some tools write.
    if slope == 0 or not math.isfinite(slope) or (slope == 1 and shift == 0):
        return values
    if not math.isfinite(shift):
        raise DatasetError(f"the values are scaled by {slope} and shifted by {shift}")
    return (values * slope + shift).astype(np.float32)
