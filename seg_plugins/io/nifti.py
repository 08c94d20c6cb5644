"""NIfTI-1, the format of medical volumes, read and written through nibabel."""

from __future__ import annotations

import gzip
import importlib.util
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .errors import DatasetError
from .files import write_atomically

__all__ = ["nifti_slices", "read_nifti", "write_nifti"]

T = TypeVar("T")

# 2048 slices of 512x512; more is refused from the header.
MAX_VALUES = 1 << 29
_HEADER_BYTES = 348
# Deflate cannot pack more tightly than this; a small file can claim gigabytes.
_MAX_RATIO = 1100


def read_nifti(file_name: str | Path) -> np.ndarray:
    """Read a NIfTI-1 volume, packed by gzip or not.

    Returns:
        (z, y, x) values in the machine's byte order: as stored, or float32 where the header has a
        slope and a shift. The orientation matrix is not applied.

    Raises:
        DatasetError: nibabel is not installed, or the file is missing, damaged, too large or of
            another kind.
    """
    return _opened(Path(file_name), _read)


def nifti_slices(file_name: str | Path) -> int:
    """The number of slices of a volume, from its header.

    Raises:
        DatasetError: as of :func:`read_nifti`.
    """
    return _opened(Path(file_name), lambda file, most: _header(file)[1][2])


def write_nifti(path: Path, labels: np.ndarray, like: str | Path) -> None:
    """Write labels of a volume in its place: with its affine matrix, spacing and units.

    Args:
        path: ends in ``.nii.gz``.
        labels: (z, y, x) uint8 or uint16.
        like: the volume's file.

    Raises:
        DatasetError: as of :func:`read_nifti`.
        WriteError: the file cannot be written.
    """
    from nibabel.nifti1 import Nifti1Image

    header = _opened(Path(like), lambda file, most: _header(file)[0])
    header.set_data_dtype(labels.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0  # of the volume's values
    image = Nifti1Image(labels.T, header.get_best_affine(), header)

    def write(file: Any) -> None:
        with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed:
            packed.write(image.to_bytes())

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)


def _opened(path: Path, read: Callable[[Any, int], T]) -> T:
    """What is read of a file, unpacked, that can hold so many bytes."""
    if importlib.util.find_spec("nibabel") is None:
        raise DatasetError(
            f"{path}: NIfTI volumes are read by nibabel, which is not installed: "
            'pip install "seg_plugins[medical]"'
        )
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        most = path.stat().st_size * (_MAX_RATIO if packed else 1)
        with gzip.open(path) if packed else path.open("rb") as file:
            return read(file, most)
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: damaged file ({error})") from None
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None


def _header(file: Any) -> tuple[Any, tuple[int, int, int]]:
    """The header of an open file, and its sizes x, y and z."""
    from nibabel.nifti1 import Nifti1Header

    content = file.read(_HEADER_BYTES)
    if len(content) < _HEADER_BYTES or content[344:346] != b"n+":
        raise DatasetError("not a NIfTI-1 volume in one file")
    # The header alone: extensions, which may claim any length, are passed over.
    header = Nifti1Header(content, check=False)
    count, *sizes = (int(size) for size in header["dim"])
    if not 2 <= count <= 7 or min(sizes[:count]) < 1 or math.prod(sizes[3:count]) != 1:
        raise DatasetError(f"the sizes {sizes[: max(count, 0)]} are not those of one volume")
    x, y, z = (*sizes[:count], 1)[:3]
    if x * y * z > MAX_VALUES:
        raise DatasetError(f"{x}x{y}x{z} values are more than the limit of {MAX_VALUES}")
    return header, (x, y, z)


def _read(file: Any, most: int) -> np.ndarray:
    """The values of an open file that can hold `most` bytes."""
    from nibabel.spatialimages import HeaderDataError
    from nibabel.volumeutils import array_from_file

    header, (x, y, z) = _header(file)
    try:
        kind = header.get_data_dtype()
    except (KeyError, HeaderDataError):
        kind = np.dtype(object)
    if kind.kind not in "iuf" or kind.itemsize > 8:
        raise DatasetError(
            f"NIfTI datatype {header['datatype']} is not supported: real numbers are"
        )
    offset = float(header["vox_offset"])
    if not _HEADER_BYTES + 4 <= offset <= 1 << 24:
        raise DatasetError(f"the values start at {offset}, which is not after the header")
    if int(offset) + x * y * z * kind.itemsize > most:
        raise DatasetError("the file is truncated")
    try:
        slope, shift = header.get_slope_inter()  # a slope of 0 or NaN means "not scaled"
    except HeaderDataError:
        slope, shift = float(header["scl_slope"]), float(header["scl_inter"])
        raise DatasetError(f"the values are scaled by {slope} and shifted by {shift}") from None
    stored = array_from_file((x, y, z), kind, file, int(offset), mmap=False).T
    values = stored.astype(kind.newbyteorder("="), copy=False)
    if slope is None or (slope == 1 and shift == 0):
        return values
    return (values * slope + shift).astype(np.float32)
