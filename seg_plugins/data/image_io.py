"""Reading images and label images without changing their values."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .array_io import as_image, as_label, read_npy, read_text
from .errors import DatasetError
from .nifti import is_nifti, read_nifti
from .tiff import read_tiff

# Names are taken apart as strings: pathlib keeps the parts of each path that it has seen in the
# interpreter's table of strings, which grows by megabytes over tens of thousands of images.

__all__ = ["IMAGE_FORMATS", "MAX_PIXELS", "pixels_of", "read_image", "read_label", "stored_rotated"]

IMAGE_FORMATS = ("BGR", "RGB", "L", "raw")
# Larger images are refused from the header: a small file can claim gigabytes.
MAX_PIXELS = 300_000_000
_EXIF_ORIENTATION = 0x0112
_SAMPLES_PER_PIXEL = 277
_JPEG_END = b"\xff\xd9"
_INTEGER_MODES = ("L", "P", "I", "I;16", "I;16B", "I;16L", "1")


class _NotForPillow(DatasetError):
    """A TIFF that is a sound file, maybe, but of a kind that Pillow does not know."""


def open_image(file_name: str) -> Image.Image:
    """Open an image and check its header; the pixels are not read yet.

    Raises:
        DatasetError: a missing, unreadable or oversized file.
    """
    try:
        image = Image.open(file_name)
    except FileNotFoundError:
        raise DatasetError(f"{file_name}: no such file") from None
    except Image.DecompressionBombError as error:
        raise DatasetError(f"{file_name}: {error}") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        is_tiff = file_name.lower().endswith((".tif", ".tiff"))
        kind = _NotForPillow if is_tiff else DatasetError
        raise kind(f"{file_name}: not a readable image ({error})") from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DatasetError(
            f"{file_name}: {width}x{height} pixels are more than the limit of {MAX_PIXELS}"
        )
    return image


def stored_rotated(file_name: str) -> bool:
    """Whether an EXIF tag says that the pixels are to be rotated or mirrored for display."""
    if file_name.endswith((".npy", ".txt")) or is_nifti(file_name):
        return False
    try:
        with open_image(file_name) as image:
            return image.getexif().get(_EXIF_ORIENTATION, 1) != 1
    except (_NotForPillow, OSError, ValueError, SyntaxError, EOFError):
        return False  # no tag can be read; whether the pixels can is told when they are


def read_image(file_name: str, image_format: str = "BGR") -> np.ndarray:
    """Read an image, upright as its EXIF tag says.

    Args:
        file_name: any format that Pillow reads, ``.npy``, or NIfTI (``.nii``, ``.nii.gz``), whose
            slices are channels.
        image_format: "RGB", "BGR" or "L" convert to 8-bit channels in that order; "raw" gives
            the stored channels and values: 16-bit, float, one or more than three channels.

    Returns:
        (H, W, C) array; uint8 unless `image_format` is "raw".

    Raises:
        DatasetError: the file is missing, unreadable or too large.
    """
    if file_name.endswith(".npy"):
        pixels = as_image(file_name, read_npy(file_name), image_format)
    elif is_nifti(file_name):
        volume = read_nifti(file_name).transpose(1, 2, 0)
        pixels = as_image(file_name, volume, image_format)
    else:
        try:
            with open_image(file_name) as image:
                _refuse_hidden_bands(file_name, image, image_format)
                if image_format in ("BGR", "RGB"):
                    fast = _decode_fast(file_name, image, image_format)
                    if fast is not None:
                        return fast
                pixels = _pixels(file_name, image, image_format)
        except _NotForPillow as error:
            if image_format != "raw":
                raise DatasetError(f"{error}; INPUT.FORMAT raw reads more kinds of TIFF") from None
            pixels = as_image(file_name, read_tiff(file_name, MAX_PIXELS), image_format)
    return pixels[:, :, ::-1] if image_format == "BGR" else pixels


def pixels_of(image: Image.Image, image_format: str = "BGR") -> np.ndarray:
    """What :func:`read_image` would give of the file that Pillow's image stands for.

    It is turned upright by its EXIF tag, which Pillow's own upright copies lack.

    Raises:
        DatasetError: more than 8 bits or hidden bands, as for files; damaged pixels.
    """
    name = str(getattr(image, "filename", "")) or f"Pillow's {image.mode} image"
    try:
        _refuse_hidden_bands(name, image, image_format)
    except _NotForPillow as error:
        raise DatasetError(f"{error}: give the file's path") from None
    if image_format == "raw" and image.mode in ("RGB", "RGBA") and _is_deep(image):
        raise DatasetError(f"{name}: 16-bit colours, of which Pillow keeps 8: give the file's path")
    pixels = _pixels(name, image, image_format)
    return pixels[:, :, ::-1] if image_format == "BGR" else pixels


def _is_deep(image: Image.Image) -> bool:
    """Whether colours of 16 bits are stored; known until Pillow has read them."""
    return any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def read_label(file_name: str, *, colour: bool = False) -> np.ndarray:
    """Read a label image as stored: palette indices stay indices, 16 bits stay 16 bits.

    Args:
        file_name: any format that Pillow reads, ``.npy``, NIfTI of one slice, or ``.txt`` with a
            line per row.
        colour: the label holds colours, as (H, W, 3) uint8, RGB.

    Returns:
        (H, W) integers or, with `colour`, (H, W, 3) uint8.

    Raises:
        DatasetError: an unreadable file, or a colour picture where ids are expected.
    """
    if file_name.endswith(".npy"):
        return as_label(file_name, read_npy(file_name), colour=colour)
    if file_name.endswith(".txt"):
        return as_label(file_name, read_text(file_name), colour=colour)
    if is_nifti(file_name):
        return as_label(file_name, _only_slice(file_name), colour=colour)
    with open_image(file_name) as image:
        if colour:
            return _pixels(file_name, image, "RGB")
        if image.mode not in _INTEGER_MODES:
            raise DatasetError(
                f"{file_name}: a {image.mode} picture where a label with one class id per pixel "
                "is expected; if its colours stand for classes, say so in the dataset's "
                "description (labels: colours)"
            )
        # Pillow widens some 16-bit files.
        return as_label(file_name, _pixels(file_name, image, "raw")[:, :, 0], colour=False)


def _refuse_hidden_bands(file_name: str, image: Image.Image, image_format: str) -> None:
    """Pillow gives the first band or the first three of some TIFFs, and says nothing."""
    stored, seen = getattr(image, "tag_v2", {}).get(_SAMPLES_PER_PIXEL, 1), len(image.getbands())
    if stored > seen and (image_format == "raw" or seen == 1):
        raise _NotForPillow(f"{file_name}: {stored} bands, of which Pillow reads {seen}")


def _decode_fast(file_name: str, image: Image.Image, image_format: str) -> np.ndarray | None:
    """Decode plain 8-bit JPEG by OpenCV, which gives the same values and the order asked for.

    None leaves the file to Pillow: other formats and modes, rotated images, and files without
    their end mark, which OpenCV fills with grey instead of an error.
    """
    if image.mode != "RGB" or image.format != "JPEG":
        return None
    if image.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        return None
    with open(file_name, "rb") as file:
        content = file.read()
    if not content.endswith(_JPEG_END):
        return None
    flags = cv2.IMREAD_COLOR_BGR if image_format == "BGR" else cv2.IMREAD_COLOR_RGB
    return cv2.imdecode(np.frombuffer(content, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)


def _pixels(file_name: str, image: Image.Image, image_format: str) -> np.ndarray:
    # Asked before anything loads the image, which forgets it.
    is_deep = _is_deep(image)
    try:
        rotated = image.getexif().get(_EXIF_ORIENTATION, 1) != 1
        if rotated:
            image = ImageOps.exif_transpose(image)
        if image_format != "raw":
            if image.mode.startswith(("I", "F")):  # Pillow would cut its values off at 255
                raise DatasetError(
                    f"{file_name}: more than 8 bits, which only INPUT.FORMAT raw keeps; "
                    f"{image_format} means 8-bit pictures"
                )
            image = image.convert("L" if image_format == "L" else "RGB")
        elif image.mode in ("RGB", "RGBA") and is_deep:
            # Pillow would drop the lower byte of 16-bit colours.
            if rotated:
                raise DatasetError(
                    f"{file_name}: 16-bit colours with an EXIF rotation; store them upright"
                )
            return _decode_deep(file_name)
        return as_image(file_name, np.asarray(image), image_format)
    except DatasetError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise DatasetError(f"{file_name}: damaged image ({error})") from None


def _decode_deep(file_name: str) -> np.ndarray:
    pixels = cv2.imread(file_name, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3:
        raise DatasetError(f"{file_name}: damaged image")
    return pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]


def _only_slice(file_name: str) -> np.ndarray:
    volume = read_nifti(file_name)
    if len(volume) != 1:
        raise DatasetError(
            f"{file_name}: {len(volume)} slices where a label of one is expected; split volumes "
            "into slices as datasets/prepare_lits.py does"
        )
    return volume[0]
