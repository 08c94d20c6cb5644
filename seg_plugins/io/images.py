"""Reading images and label images without changing their values."""

from __future__ import annotations

import logging
import os

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .arrays import as_image, as_label, read_npy, read_text
from .errors import DatasetError
from .file_kind import is_lossy, kind_of
from .nifti import nifti_slices, read_nifti
from .raster_windows import read_image_window
from .tiff import picture_pages, read_tiff, several_pages
from .window_names import split_name

# Names are taken apart as strings: pathlib keeps the parts of each path that it has seen in the
# interpreter's table of strings, which grows by megabytes over tens of thousands of images.

__all__ = [
    "IMAGE_FORMATS",
    "MAX_PIXELS",
    "max_pixels",
    "page_count",
    "pixels_of",
    "read_image",
    "read_label",
    "stored_rotated",
]

IMAGE_FORMATS = ("BGR", "RGB", "L", "raw")
# Larger images are refused from the header: a small file can claim gigabytes. The environment
# variable sets another limit, in every process alike.
MAX_PIXELS = 300_000_000
LIMIT_KEY = "SEG_PLUGINS_MAX_PIXELS"
# Pillow's own limit where nobody has set another; it is lower than ours.
_PILLOW_LIMIT = 1024 * 1024 * 1024 // 4 // 3
# What this module set in its place.
_set_limit = [0]
EXIF_ORIENTATION = 0x0112
_SAMPLES_PER_PIXEL = 277
_SAMPLE_FORMAT, _SIGNED = 339, 2
_JPEG_END = b"\xff\xd9"
# Where a PNG may hold a rotation: its own chunk, ImageMagick's text, Adobe's.
_PNG_EXIF = (b"eXIf", b"Raw profile type", b"com.adobe.xmp")
_INTEGER_MODES = ("L", "P", "I", "I;16", "I;16B", "I;16L", "1")


# Pillow logs an error for a TIFF of more channels than it knows, and raises one as well. Such files
# are read by tifffile, so that the first would be shown about files that are sound.
logging.getLogger("PIL.TiffImagePlugin").addFilter(
    lambda record: not str(record.msg).startswith("More samples per pixel")
)


class _NotForPillow(DatasetError):
    """A TIFF that is a sound file, maybe, but of a kind that Pillow does not know."""


def open_image(file_name: str, page: int | None = None) -> Image.Image:
    """Open an image and check its header; the pixels are not read yet.

    Args:
        file_name: of the image.
        page: of a stack or an animation, from 0; None: the file should hold one picture.

    Raises:
        DatasetError: a missing, unreadable or oversized file, one of several pages, or one that has
            no such page.
    """
    limit = max_pixels()
    if Image.MAX_IMAGE_PIXELS in (_PILLOW_LIMIT, _set_limit[0]):  # nobody's own
        Image.MAX_IMAGE_PIXELS = _set_limit[0] = limit
    try:
        image = Image.open(file_name)
    except FileNotFoundError:
        raise DatasetError(f"{file_name}: no such file") from None
    except Image.DecompressionBombError as error:
        raise DatasetError(
            f"{file_name}: {error} (PIL.Image.MAX_IMAGE_PIXELS is {Image.MAX_IMAGE_PIXELS}, the "
            f"limit here {limit}). {_way_out()}"
        ) from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        kind = _NotForPillow if kind_of(file_name) == "tiff" else DatasetError
        raise kind(f"{file_name}: not a readable image ({error})") from None
    if page is None:
        _refuse_pages(file_name, image)
    else:
        image.seek(_place(file_name, image, page))
    width, height = image.size
    if width * height > limit:
        raise DatasetError(
            f"{file_name}: {width}x{height} pixels are more than the limit of {limit}. {_way_out()}"
        )
    return image


def max_pixels() -> int:
    """The most pixels of an image that is read as a whole.

    Raises:
        DatasetError: the environment variable holds something else than a number.
    """
    text = os.environ.get(LIMIT_KEY, "")
    if not text:
        return MAX_PIXELS
    if not text.isdecimal() or int(text) < 1:
        raise DatasetError(
            f"the environment variable {LIMIT_KEY} is {text!r}: give pixels, 400000000"
        )
    return int(text)


def _way_out() -> str:
    return (
        f"The environment variable {LIMIT_KEY} sets another limit; or cut it into tiles, or store "
        "it as TIFF, which are predicted and trained on by windows"
    )


def stored_rotated(file_name: str) -> bool:
    """Whether an EXIF tag says that the pixels are to be rotated or mirrored for display."""
    if kind_of(file_name) not in ("picture", "tiff"):
        return False
    try:
        with open_image(file_name) as image:
            return image.getexif().get(EXIF_ORIENTATION, 1) != 1
    except (_NotForPillow, OSError, ValueError, SyntaxError, EOFError):
        return False  # no tag can be read; whether the pixels can is told when they are


def page_count(file_name: str) -> int:
    """The pictures in a file: pages of a TIFF, slices of NIfTI, frames of an animation, else 1.

    Raises:
        DatasetError: a missing or unreadable file.
    """
    kind = kind_of(file_name)
    if kind == "tiff":
        return max(len(picture_pages(file_name)), 1)
    if kind == "nifti":
        return nifti_slices(file_name)
    if kind != "picture":
        return 1
    with open_image(file_name, 0) as image:
        return _frames(image)


def _frames(image: Image.Image) -> int:
    # The further pictures of a camera's MPO are previews.
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def _place(file_name: str, image: Image.Image, page: int) -> int:
    """Where Pillow has a page."""
    if image.format == "TIFF":
        places = picture_pages(file_name)
    else:
        places = list(range(_frames(image)))
    if page >= len(places):
        raise DatasetError(f"{file_name}: no page {page}: its {len(places)} pages count from 0")
    return places[page]


def read_image(file_name: str, image_format: str = "BGR", page: int | None = None) -> np.ndarray:
    """Read an image, upright as its EXIF tag says.

    Args:
        file_name: any format that Pillow reads, NPY, or NIfTI (plain or gzip), whose slices are
            channels. What the file is, its content says, not its name. Or a window of a raster,
            ``a.tif#xywh=512,0,256,256``.
        image_format: "RGB", "BGR" or "L" convert to 8-bit channels in that order; "raw" gives
            the stored channels and values: 16-bit, float, one or more than three channels.
        page: of a stack or an animation, from 0; None: the file should hold one picture.

    Returns:
        (H, W, C) array; uint8 unless `image_format` is "raw".

    Raises:
        DatasetError: the file is missing, unreadable, too large, or of several pages.
    """
    kind, (raster, area) = kind_of(file_name), split_name(file_name)
    if area is not None:
        pixels = read_image_window(raster, area, image_format)
    elif kind == "npy":
        pixels = as_image(file_name, read_npy(file_name), image_format)
    elif kind == "nifti":
        volume = read_nifti(file_name).transpose(1, 2, 0)
        pixels = as_image(file_name, volume, image_format)
    else:
        try:
            with open_image(file_name, page) as image:
                _refuse_hidden_bands(file_name, image, image_format)
                if image_format in ("BGR", "RGB") and page is None:
                    fast = _decode_fast(file_name, image, image_format)
                    if fast is not None:
                        return fast
                pixels = _pixels(file_name, image, image_format)
        except _NotForPillow as error:
            if image_format != "raw":
                raise DatasetError(f"{error}; INPUT.FORMAT raw reads more kinds of TIFF") from None
            places = picture_pages(file_name) or [0]
            if page is None and len(places) > 1:
                raise several_pages(file_name, len(places)) from None
            values = read_tiff(file_name, max_pixels(), places[page or 0])
            pixels = as_image(file_name, values, image_format)
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


def read_label(file_name: str, *, color: bool = False) -> np.ndarray:
    """Read a label image as stored: palette indices stay indices, 16 bits stay 16 bits.

    Args:
        file_name: any format that Pillow reads and that keeps values, NPY, NIfTI of one slice, or
            text with a line per row. Several channels are ids where they are equal.
        color: the label holds colours, as (H, W, 3) uint8, RGB.

    Returns:
        (H, W) integers or, with `color`, (H, W, 3) uint8.

    Raises:
        DatasetError: an unreadable file, a lossy one, or a colour picture where ids are expected.
    """
    kind = kind_of(file_name)
    if kind == "npy":
        return as_label(file_name, read_npy(file_name), color=color)
    if kind == "text":
        return as_label(file_name, read_text(file_name), color=color)
    if kind == "nifti":
        return as_label(file_name, _only_slice(file_name), color=color)
    with open_image(file_name) as image:
        if is_lossy(file_name):
            raise DatasetError(
                f"{file_name}: a label stored as {image.format}, whose lossy compression changes "
                "ids and colours; export the labels as PNG from where they were drawn"
            )
        if color:
            fast = _decode_fast(file_name, image, "RGB")
            return _pixels(file_name, image, "RGB") if fast is None else fast
        if image.mode in _INTEGER_MODES:
            ids = _pixels(file_name, image, "raw")[:, :, 0]
        else:
            ids = _equal_channels(file_name, image)
        return as_label(file_name, ids, color=False)  # Pillow widens some 16-bit files


def _equal_channels(file_name: str, image: Image.Image) -> np.ndarray:
    """The ids of a label that was stored with as many channels as a colour picture."""
    if image.mode in ("RGB", "RGBA", "LA"):
        pixels = _pixels(file_name, image, "raw")
        colors = pixels[:, :, : 1 if image.mode == "LA" else 3]
        alpha = pixels[:, :, colors.shape[2] :]  # must tell nothing that the colours do not
        if (alpha == alpha[:1, :1]).all() and (colors == colors[:, :, :1]).all():
            return colors[:, :, 0]
    raise DatasetError(
        f"{file_name}: a {image.mode} picture where a label with one class id per pixel is "
        "expected (equal channels are read as ids); if its colours stand for classes, say so in "
        "the dataset's description (labels: colours)"
    )


def _refuse_pages(file_name: str, image: Image.Image) -> None:
    """Only the first page would be read."""
    pages = len(picture_pages(file_name)) if image.format == "TIFF" else _frames(image)
    if pages > 1:
        raise several_pages(file_name, pages)


def _refuse_hidden_bands(file_name: str, image: Image.Image, image_format: str) -> None:
    """Pillow gives the first band or the first three of some TIFFs, and says nothing."""
    tags = getattr(image, "tag_v2", {})
    if image.mode == "L" and tags.get(_SAMPLE_FORMAT) in (_SIGNED, (_SIGNED,)):
        raise _NotForPillow(f"{file_name}: values from -128 to 127, of which Pillow makes 0 to 255")
    stored, seen = tags.get(_SAMPLES_PER_PIXEL, 1), len(image.getbands())
    if stored > seen and (image_format == "raw" or seen == 1):
        raise _NotForPillow(f"{file_name}: {stored} bands, of which Pillow reads {seen}")


def _decode_fast(file_name: str, image: Image.Image, image_format: str) -> np.ndarray | None:
    """Decode plain 8-bit JPEG and PNG by OpenCV: the same values in the order asked for, sooner.

    None leaves the file to Pillow: other formats and modes, rotated images, damaged PNG, and JPEG
    without their end mark, which OpenCV fills with grey instead of an error.
    """
    if image.mode != "RGB" or image.format not in ("JPEG", "PNG") or _is_deep(image):
        return None
    with open(file_name, "rb") as file:
        content = file.read()
    if image.format == "PNG":
        # To know of a rotation Pillow decodes all of it; what may tell of one is left to it.
        simple = not any(mark in content for mark in _PNG_EXIF)
    else:
        simple = content.endswith(_JPEG_END) and image.getexif().get(EXIF_ORIENTATION, 1) == 1
    if not simple:
        return None
    flags = cv2.IMREAD_COLOR_BGR if image_format == "BGR" else cv2.IMREAD_COLOR_RGB
    return cv2.imdecode(np.frombuffer(content, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)


def _pixels(file_name: str, image: Image.Image, image_format: str) -> np.ndarray:
    # Asked before anything loads the image, which forgets it.
    is_deep = _is_deep(image)
    try:
        rotated = image.getexif().get(EXIF_ORIENTATION, 1) != 1
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
