"""What is given to predict: files, patterns, folders and videos; and images made ready."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from PIL import Image

from ..data import DatasetError
from ..data.augmentation_builder import build_augmentations, build_photometric
from ..data.augmentations import Content
from ..data.datasets.pairing import PICTURES
from ..data.geometry import Geometry
from ..data.image_mapper import image_to_tensor
from ..io.arrays import as_image
from ..io.file_kind import kind_of
from ..io.gaps import filled, find_gaps
from ..io.images import page_count, pixels_of, read_image
from ..io.tiff import declared_nodata, nodata_of
from ..visualization import overlays
from .errors import PredictionError

logger = logging.getLogger(__name__)

VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")


@dataclass(frozen=True)
class Source:
    """One input file.

    Attributes:
        path: the file.
        name: of its outputs, without suffix; it may have folders.
        file_name: its own, relative to the folder that was given.
        page: of a stack or an animation, from 0; None: the file should hold one picture.
        pages: of a stack whose labels are to stand in one file; () of all others.
        count: the pages that such a file has, chosen or not.
    """

    path: Path
    name: str
    file_name: str
    page: int | None = None
    pages: tuple[Source, ...] = ()
    count: int = 1

    @property
    def is_video(self) -> bool:
        """Whether it is a video by its name."""
        return self.path.suffix.lower() in VIDEOS

    @property
    def is_tiff(self) -> bool:
        """Whether it is a TIFF by its content."""
        return self.path.is_file() and kind_of(str(self.path)) == "tiff"

    def split(self, pages: str, *, together: bool = False) -> list[Source]:
        """The pages of a stack as sources of their own, named NAME_page3; else the source.

        Args:
            pages: see :func:`chosen_pages`.
            together: labels of a TIFF stand in one file, as those of NIfTI always do: one source
                that has them as its `pages`.
        """
        try:
            count = 1 if self.is_video else page_count(str(self.path))
        except DatasetError:  # told with the file's turn, as of all others
            return [self]
        is_volume = not self.is_video and kind_of(str(self.path)) == "nifti"
        if count == 1 and not is_volume:
            return [self]
        stem, suffix = os.path.splitext(self.file_name)
        digits = len(str(count - 1))
        found = [
            Source(
                self.path,
                f"{self.name}_page{page:0{digits}}",
                f"{stem}_page{page:0{digits}}{suffix}",
                page,
            )
            for page in chosen_pages(pages, count, str(self.path))
        ]
        if is_volume or (together and self.is_tiff):
            return [replace(self, pages=tuple(found), count=count)]
        return found


def chosen_pages(text: str, count: int, name: str) -> list[int]:
    """The pages that "all" or "0,3-5" means of so many.

    Raises:
        PredictionError: no such text, or a page that is not there.
    """
    if text == "all":
        return list(range(count))
    chosen: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if not match:
            raise PredictionError(f"pages '{text}': write all, or numbers and ranges, 0,3-5")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < count:
            raise PredictionError(f"{name}: no pages {part.strip()}: its {count} count from 0")
        chosen.update(range(first, last + 1))
    return sorted(chosen)


def find_sources(
    inputs: Sequence[str], output: Path, pages: str = "", *, together: bool = False
) -> list[Source]:
    """The files that inputs name; a warning counts what is left out.

    Args:
        inputs: files, folders (searched to any depth) and glob patterns.
        output: the folder of the results, whose files are left out.
        pages: of files that hold several pictures: "all", or numbers from 0 and ranges, "0,3-5";
            each is a source of its own. "": such files are errors when they are read.
        together: see :meth:`Source.split`.

    Returns:
        In the order of their paths, each file once. Outputs are named as the inputs, relative to
        the folder or to the part of the pattern before the first wildcard; where two inputs hold
        files of one name, relative to the folder that all inputs have in common. Where two differ
        in the suffix alone, the suffix belongs to the name. So no two have the same name.

    Raises:
        DatasetError: an input that names no file, or a folder that cannot be read.
        PredictionError: pages that are no numbers, or that a file lacks.
    """
    found: dict[Path, tuple[Path, Path]] = {}  # absolute -> as given, its base
    own = output.resolve()
    for text in inputs:
        base, paths = _expand(text)
        paths = [path for path in paths if own not in path.resolve().parents]
        if not Path(text).is_file():
            paths = _pictures(paths, text)
        if not paths:
            raise DatasetError(
                f"{text}: no such file, or no image or video in it ({', '.join(PICTURES + VIDEOS)})"
            )
        for path in paths:
            found.setdefault(_absolute(path), (path, base))
    names = {key: path.relative_to(base).as_posix() for key, (path, base) in found.items()}
    if len(set(names.values())) < len(names):
        common = Path(os.path.commonpath([_absolute(base) for _, base in found.values()]))
        names = {key: key.relative_to(common).as_posix() for key in found}
    sources = [
        Source(found[key][0], name, names[key])
        for key, name in sorted(_output_names(names).items(), key=lambda item: found[item[0]][0])
    ]
    if pages:
        sources = [part for one in sources for part in one.split(pages, together=together)]
        names_used = Counter(part.name for one in sources for part in (one, *one.pages))
        twice = [name for name, count in names_used.items() if count > 1]
        if twice:
            raise PredictionError(
                f"--pages: '{twice[0]}' would be the name of a page and of a file: rename the file"
            )
    return sources


def _output_names(names: dict[Path, str]) -> dict[Path, str]:
    """File names without their suffix where that leaves them apart."""
    stems = Counter(_stem(name) for name in names.values())
    short = {key: name if stems[_stem(name)] > 1 else _stem(name) for key, name in names.items()}
    # "a.jpg" and "a.png" keep their suffix; "a.jpg.png" would become "a.jpg" again.
    return short if len(set(short.values())) == len(short) else dict(names)


def _absolute(path: Path) -> Path:
    """Without ``..``; links stay, for they may give one file two names."""
    return Path(os.path.abspath(path))


def _expand(text: str) -> tuple[Path, list[Path]]:
    """The part of an input that is no pattern, and the files."""
    path = Path(text)
    if path.is_file():
        return path.parent, [path]
    if path.is_dir():
        return path, _walk(path)
    parts = path.parts
    first = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    matches = (Path(match) for match in glob.glob(text, recursive=True, include_hidden=True))
    return Path(*parts[:first]), [match for match in matches if not match.is_dir()]


def _walk(folder: Path) -> list[Path]:
    """All files below a folder, also behind links; links to nowhere are files that fail."""

    def refuse(error: OSError) -> None:
        raise DatasetError(f"{error.filename}: the folder cannot be read ({error.strerror})")

    files, seen = [], set()
    for path, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(path)
        if real in seen:  # a link back into the tree
            folders.clear()
            continue
        seen.add(real)
        files += [Path(path, name) for name in names]
    return files


def _pictures(paths: list[Path], text: str) -> list[Path]:
    """Images and videos by their names; the others are counted by suffix in a warning."""
    chosen: list[Path] = []
    others: Counter[str] = Counter()
    for path in paths:
        suffixes = ("".join(path.suffixes[-2:]).lower(), path.suffix.lower())
        if path.name.startswith("."):  # macOS keeps "._photo.jpg", no picture, beside "photo.jpg"
            others["hidden"] += 1
        elif {*suffixes}.isdisjoint((*PICTURES, *VIDEOS)):
            others[path.suffix.lower() or "without suffix"] += 1
        else:
            chosen.append(path)
    if others:
        listed = ", ".join(f"{count} {kind}" for kind, count in others.most_common())
        logger.warning(
            "%s: %d files are no images or videos by their names and are left out: %s; a file "
            "named by itself is always read",
            text,
            others.total(),
            listed,
        )
    return chosen


def _stem(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(Path(name.removesuffix(".gz")).suffix)


@dataclass(frozen=True)
class Picture:
    """One image.

    Attributes:
        image: (H, W, 3) uint8 in RGB, to be shown.
        pixels: (H, W, C) in the channels that the model takes (``INPUT.FORMAT``).
        gaps: (H, W) bool, pixels without data, which the other two show in the mean colour; None
            where all have some.
    """

    image: np.ndarray
    pixels: np.ndarray
    gaps: np.ndarray | None = None


class Preparation:
    """Reads images and brings them to what the model takes, as the mappers do when testing.

    Args:
        cfg: ``INPUT`` says how; ``MODEL.PIXEL_MEAN`` fills pixels without data.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.image_format: str = cfg.INPUT.FORMAT
        #: Of each channel.
        self.mean = [float(value) for value in cfg.MODEL.PIXEL_MEAN]
        self._resize = build_augmentations(cfg, is_train=False)
        self._photometric = build_photometric(cfg, is_train=False)

    def read(self, path: str | Path, page: int | None = None) -> Picture:
        """Read a file, upright as its EXIF tag says.

        Args:
            path: the file.
            page: of a stack or an animation, from 0; None: the file should hold one picture.

        Raises:
            DatasetError: the file is missing or unreadable, or holds NaN that it does not declare.
        """
        pixels = read_image(str(path), self._stored_format, page)
        self._check_slices(pixels, str(path))
        return self._picture(pixels, str(path), declared_nodata(str(path)))

    def from_volume(self, volume: np.ndarray, place: int, name: str) -> Picture:
        """A slice of a volume.

        Args:
            volume: (z, y, x).
            place: of the slice. A model of several channels takes its neighbours as well, those at
                the ends again, as datasets/prepare_lits.py writes them.
            name: of the file.

        Raises:
            DatasetError: more than 8 bits for a model of 8; NaN or infinity.
            PredictionError: an even number of channels.
        """
        channels = len(self.mean) if self.image_format == "raw" else 1
        if channels % 2 == 0:
            raise PredictionError(
                f"{name}: the model takes {channels} channels; those of a slice and its neighbours "
                "on both sides are odd in number"
            )
        places = np.arange(place - channels // 2, place + channels // 2 + 1)
        slab = volume[places.clip(0, len(volume) - 1)].transpose(1, 2, 0)
        pixels = as_image(name, slab, self._stored_format)
        return self._picture(pixels, f"{name}, slice {place}", None)

    def from_pillow(self, image: Image.Image) -> Picture:
        """Pillow's image, upright as its EXIF tag says: the same as its file.

        Raises:
            DatasetError: more than 8 bits for a model of 8, or damaged pixels.
        """
        name = str(getattr(image, "filename", "")) or "Pillow's image"
        return self._picture(pixels_of(image, self._stored_format), name, nodata_of(image))

    def from_array(self, array: np.ndarray, order: str = "RGB") -> Picture:
        """An image in memory.

        Args:
            array: (H, W), (H, W, 1), (H, W, 3) or, the last channel left out, (H, W, 4) uint8;
                any number of channels and type for models with ``INPUT.FORMAT`` raw.
            order: of three channels, "RGB" (Pillow, matplotlib) or "BGR" (OpenCV).

        Raises:
            PredictionError: another shape or type, NaN or infinity.
        """
        if order not in ("RGB", "BGR"):
            raise PredictionError(f"order is {order!r}; it should be 'RGB' or 'BGR'")
        array = array[:, :, None] if array.ndim == 2 else array
        if array.ndim != 3 or 0 in array.shape:
            raise PredictionError(f"an image is (H, W) or (H, W, C); got shape {array.shape}")
        if self.image_format == "raw":
            return self._picture(array, "the array", None)
        if array.dtype != np.uint8 or array.shape[2] not in (1, 3, 4):
            raise PredictionError(
                f"INPUT.FORMAT {self.image_format} takes uint8 of 1, 3 or 4 channels; got "
                f"{array.dtype} of shape {array.shape}"
            )
        image = np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[:, :, :3]
        image = np.ascontiguousarray(image[:, :, ::-1] if order == "BGR" else image)
        if self.image_format == "L":
            grey = np.asarray(Image.fromarray(image).convert("L"))
            return Picture(image, grey[:, :, None])
        return self._picture(image, "the array", None)

    def _check_slices(self, pixels: np.ndarray, name: str) -> None:
        channels = len(self.mean)
        if pixels.shape[2] != channels and kind_of(name) == "nifti":
            raise DatasetError(
                f"{name}: {pixels.shape[2]} slices where the model takes {channels} channels; "
                "--pages all predicts them slice by slice"
            )

    @property
    def _stored_format(self) -> str:
        """What files are read as: colours as they are shown, and turned to the model's after."""
        return "RGB" if self.image_format == "BGR" else self.image_format

    def _picture(self, pixels: np.ndarray, name: str, nodata: float | None) -> Picture:
        """From (H, W, C) pixels in the format that files are read as."""
        gaps = find_gaps(pixels, nodata, name)
        is_bgr = self.image_format == "BGR"
        if gaps is not None:
            pixels = filled(pixels, gaps, self.mean[::-1] if is_bgr else self.mean)
        image = overlays.displayable(pixels)
        return Picture(image, image[:, :, ::-1] if is_bgr else pixels, gaps)

    def tensor(self, pixels: np.ndarray, *, resize: bool = True) -> torch.Tensor:
        """(H, W, C) pixels to the model's (C, H', W') input, resized as ``INPUT`` says."""
        rng = np.random.default_rng(0)  # nothing is drawn from it when testing
        if resize:
            geometry = Geometry.identity((pixels.shape[0], pixels.shape[1]))
            for step in self._resize:
                geometry = step(rng, geometry, Content())
            pixels = geometry.apply_image(pixels)
        for change in self._photometric:
            pixels = change(rng, pixels)
        return image_to_tensor(pixels)
