"""Which image and which mask belong together, told by their names."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from detectron2.utils.logger import log_first_n

from ..errors import DatasetError, Report
from .files import missing

__all__ = ["PICTURES", "Side", "find_pairs", "listed_pairs"]

PICTURES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".gtif",
    ".gtiff", ".webp", ".jp2", ".pgm", ".ppm", ".pbm", ".pnm", ".tga", ".npy", ".nii", ".nii.gz",
)  # fmt: skip
# Spellings of one suffix.
_SAME = ((".jpg", ".jpeg"), (".tif", ".tiff"))
_SHOWN = 5


@dataclass(frozen=True)
class Side:
    """The images, or the masks.

    Attributes:
        folder: subfolders are searched too.
        suffix: end of the file names, in capitals or not, ``.jpg`` for ``.jpeg`` too; "" takes
            every picture.
        key: how a description calls `suffix`.
    """

    folder: Path
    suffix: str
    key: str

    def files(self, *, shared: bool = False) -> dict[str, list[Path]]:
        """Path below the folder without suffix -> the files of that name.

        Args:
            shared: other pictures are expected in the folder; else they are counted in the log.

        Raises:
            DatasetError: there is no such folder, or no such file in it.
        """
        if not self.folder.is_dir():
            raise missing(self.folder, "no such folder")
        endings = spellings(self.suffix) if self.suffix else PICTURES
        found: dict[str, list[Path]] = {}
        left_out: Counter[str] = Counter()
        for path in sorted(self.folder.rglob("*")):
            ending = ending_of(path.name, endings)
            if ending and path.is_file():
                stem = path.relative_to(self.folder).as_posix()[: -len(ending)]
                found.setdefault(stem, []).append(path)
            elif ending_of(path.name, PICTURES):
                left_out[path.suffix] += 1
        if left_out and (not found or (self.suffix.startswith(".") and not shared)):
            names = ", ".join(f"{count} {suffix}" for suffix, count in left_out.most_common(_SHOWN))
            text = f"{self.folder}: pictures that do not end in '{self.suffix}' ({names})"
            if not found:
                raise DatasetError(f"{text} and none that does: change or leave out {self.key}")
            log_first_n(logging.WARNING, f"{text} are left out", key="message")
        if not found:
            raise missing(self.folder, f"no file ends in {self.suffix or ', '.join(PICTURES)}")
        return found

    def file(self, stem: str) -> Path | None:
        """The file of a stem that a list gives, with or without the suffix."""
        endings = spellings(self.suffix) if self.suffix else PICTURES
        ending = ending_of(stem, endings)
        for name in dict.fromkeys((stem, stem[: -len(ending)] if ending else stem)):
            for candidate in (self.suffix, *endings, *(ending.upper() for ending in endings)):
                path = self.folder / f"{name}{candidate}"
                if candidate and path.is_file():
                    return path
        return None


def ending_of(name: str, endings: Iterable[str]) -> str:
    """The longest of `endings`, in small letters, that a name ends in; "" for none."""
    lower = name.lower()
    return max((e for e in endings if lower.endswith(e) and lower != e), key=len, default="")


def spellings(suffix: str) -> tuple[str, ...]:
    """A suffix in small letters, and the other spelling of it."""
    small = suffix.lower()
    for first, second in _SAME:
        for a, b in ((first, second), (second, first)):
            if small.endswith(a):
                return small, small.removesuffix(a) + b
    return (small,)


def listed_pairs(
    images: Side, masks: Side, stems: list[str], source: Path, report: Report
) -> list[tuple[Path, Path]]:
    """The pairs that a list of stems names; what is missing is reported."""
    pairs = []
    for stem in stems:
        image, mask = images.file(stem), masks.file(stem)
        if image is not None and mask is not None:
            pairs.append((image, mask))
            continue
        for side, found in ((images, image), (masks, mask)):
            if found is None:
                report(
                    DatasetError(
                        f"{source}: '{stem}' has no file {stem}{side.suffix or '.*'} in "
                        f"{side.folder}"
                    )
                )
    return pairs


def find_pairs(
    images: Side, masks: Side, report: Report, chosen: Callable[[str], bool] = lambda stem: True
) -> list[tuple[Path, Path]]:
    """The images and masks with the same name but for the suffix, subfolders included.

    Where no two names agree, an ending that all images share and one that all masks share are left
    out, as in ``00001_img.jpg`` and ``00001_gt.png``; several ways that pair them differently are
    an error. Images and masks without a partner are reported, and several of one name.

    Args:
        images: files of them.
        masks: files of them; the folder may be that of the images.
        report: called with the error of each file that is wrong.
        chosen: whether a stem belongs to the split.

    Returns:
        In the order of the names.

    Raises:
        DatasetError: a folder without files, no file of the split, or no way to pair them.
    """
    if images == Side(masks.folder, masks.suffix, images.key):
        raise DatasetError(
            f"{images.folder}: images and masks lie in one folder and end alike: tell them apart "
            "by image_suffix and mask_suffix, e.g. .jpg and _mask.png"
        )
    shared = images.folder == masks.folder
    found, labels = images.files(shared=shared), masks.files(shared=shared)
    if shared:  # a suffix may be the end of the other
        taken = {path for paths in labels.values() for path in paths}
        if len(masks.suffix) < len(images.suffix):
            own = {path for paths in found.values() for path in paths}
            labels = {k: v for k, v in labels.items() if own.isdisjoint(v)}
        else:
            found = {k: v for k, v in found.items() if taken.isdisjoint(v)}
    found, labels = ({k: v for k, v in n.items() if chosen(k)} for n in (found, labels))
    if not found:
        raise missing(images.folder, f"no file of the split ends in '{images.suffix}'")
    if not found.keys() & labels.keys() and labels:
        found, labels = _without_endings(found, labels, images, masks)
    for side, names in ((images, found), (masks, labels)):
        for paths in names.values():
            if len(paths) > 1:
                report(
                    DatasetError(
                        f"{paths[1]}: {paths[0].name} has the same name but for the suffix; remove "
                        f"one of them, or choose by {side.key}"
                    )
                )
    for names, others, other in ((found, labels, masks), (labels, found, images)):
        lone = [stem for stem in names if stem not in others]
        more = f"; so have {len(lone) - 1} more" if len(lone) > 1 else ""
        for stem in lone:
            report(DatasetError(f"{names[stem][0]}: no partner '{stem}' in {other.folder}{more}"))
    return [(found[stem][0], labels[stem][0]) for stem in sorted(found.keys() & labels.keys())]


_Names = dict[str, list[Path]]


def _without_endings(
    found: _Names, labels: _Names, images: Side, masks: Side
) -> tuple[_Names, _Names]:
    """Leave out one ending of the images and one of the masks so that most names agree.

    Raises:
        DatasetError: no endings make names agree, or two choices pair the files differently.
    """
    ways: dict[frozenset[tuple[Path, Path]], tuple[_Names, _Names]] = {}
    for own in _common_endings(found):
        for other in _common_endings(labels):
            a = {stem.removesuffix(own): paths for stem, paths in found.items()}
            b = {stem.removesuffix(other): paths for stem, paths in labels.items()}
            pairs = frozenset((a[stem][0], b[stem][0]) for stem in a.keys() & b.keys())
            if pairs:
                ways.setdefault(pairs, (a, b))
    most = max(map(len, ways), default=0)
    best = [pairs for pairs in ways if len(pairs) == most]
    if len(best) == 1:
        return ways[best[0]]
    names = ", ".join(
        f"{paths[0].name} in {side.folder}"
        for side, names in ((images, found), (masks, labels))
        for paths in list(names.values())[:1]
    )
    problem = "pair in several ways" if best else "do not agree"
    raise DatasetError(
        f"the names of images and masks {problem}, e.g. {names}; tell their endings by "
        "image_suffix and mask_suffix in a description (DATASETS.CUSTOM), e.g. _img.jpg and "
        "_gt.png, or give both the same names"
    )


def _common_endings(names: Iterable[str]) -> list[str]:
    """ "" and the endings like ``_gt`` and ``_s_gt`` that all names share; numbers are none."""
    first, *others = (Path(name).name for name in names)
    endings = [""]
    rest = first
    while True:
        cut = max(rest.rfind(mark) for mark in "_-. ")
        word = rest[cut + 1 :]
        ending = first[cut:]
        if cut < 1 or word.isdigit() or not all(o.endswith(ending) and o != ending for o in others):
            return endings
        endings.append(ending)
        rest = rest[:cut]
