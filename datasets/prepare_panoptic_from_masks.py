#!/usr/bin/env python
"""Build COCO panoptic files (JSON and PNGs of segment ids) from semantic and instance masks.

    python datasets/prepare_panoptic_from_masks.py --classes classes.json --images images \\
        --semantic labels --instances instances --json panoptic.json --output panoptic
    python datasets/prepare_panoptic_from_masks.py --check panoptic.json --output panoptic

classes.json lists the classes: [{"id": 7, "name": "road", "isthing": 0}, ...]; an id is the value
in the semantic masks and the category_id in the result. Other values are void and are named by
--void; how many pixels each has, and which classes have none, is told at the end: labels whose ids
are one off show there. Masks have the name of their image but for the suffix. How instance masks
tell instances apart:

    ids         any value (grey, 16 bits or RGB) but 0 is an instance; 0 is none
    ade20k      annotations_instance of ADE20K: red is the class, green the instance, 0 is none
    cityscapes  *_instanceIds.png alone, without --semantic: class, or class * 1000 + instance

An instance is a segment; stuff of one class is one segment; pixels of things without an instance
are one crowd per class. An instance whose pixels have several classes is an error, or, with
--majority, of the class of most of them; those without a pixel of a thing are counted and left
out. The result is read back and checked: no id twice, stuff
merged, areas and boxes right. --check does only that.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seg_plugins.data import DatasetError
from seg_plugins.data.datasets.pairing import Side
from seg_plugins.io.images import open_image, read_image, read_label
from seg_plugins.io.panoptic import read_segment_ids, write_segment_ids

import numpy as np

FORMATS = ("ids", "ade20k", "cityscapes")
CITYSCAPES = "_gtFine_instanceIds"


@dataclass(frozen=True)
class Masks:
    """One image's masks.

    Attributes:
        semantic: (H, W) class ids.
        instances: (H, W) int64; 0 is no instance.
        segment_ids: (H, W) int64 ids to use as they are, or None to number the segments.
    """

    semantic: np.ndarray
    instances: np.ndarray
    segment_ids: np.ndarray | None = None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--check", type=Path, metavar="JSON", help="only check these files")
    add("--classes", type=Path, help="JSON list of classes")
    add("--images", type=Path, help="folder of images")
    add("--semantic", type=Path, help="folder of semantic masks")
    add("--instances", type=Path, help="folder of instance masks")
    add("--format", choices=FORMATS, default="ids", help="of instance masks (default: ids)")
    add("--void", type=int, nargs="*", default=[0, 255], help="semantic values without a class")
    add("--majority", action="store_true", help="let an instance take its most frequent class")
    add("--json", type=Path, help="file to write")
    add("--output", type=Path, required=True, help="folder of the PNGs of segment ids")
    args = parser.parse_args()
    try:
        if args.check is None:
            missing = [n for n in ("classes", "images", "instances", "json") if not vars(args)[n]]
            if missing or (args.format != "cityscapes" and not args.semantic):
                parser.error(f"needs {', '.join(f'--{n}' for n in missing or ['semantic'])}")
            convert(args)
        count = check_files(args.check or args.json, args.output)
    except DatasetError as error:
        sys.exit(f"error: {error}")
    print(f"{args.check or args.json}: {count} images, no error")


def convert(args: argparse.Namespace) -> None:
    """Write the files for every image that has instance masks."""
    categories = _read(args.classes)
    things = _things(categories, args.classes)
    city = args.format == "cityscapes"
    # Cityscapes has more classes than are scored: the others are void.
    void = range(-1, 256) if city else args.void
    images, annotations = [], []
    tally = Tally(things)
    names = []
    for paths in Side(args.images, "", "--images").files().values():
        if len(paths) > 1:
            raise DatasetError(f"{paths[1]}: {paths[0].name} has the same name but for the suffix")
        names.append(paths[0])
    args.output.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(names, start=1):
        relative = image.relative_to(args.images)
        masks = read_masks(args, relative)
        try:
            ids, segments = panoptic_segments(masks, things, void, majority=args.majority)
        except DatasetError as error:
            raise DatasetError(f"{relative}: {error}") from None
        with open_image(str(image)) as opened:
            size = opened.size[::-1]
        tally.add(masks, segments)
        if ids.shape != size:
            raise DatasetError(f"{relative} is {size}, its masks {ids.shape} (height, width)")
        name = _city_stem(relative) + "_gtFine_panoptic.png" if city else _png(relative)
        image_id = _city_stem(relative) if city else number
        write_segment_ids(args.output / name, ids)
        images.append(
            {
                "id": image_id,
                "file_name": relative.as_posix(),
                "height": size[0],
                "width": size[1],
            }
        )
        annotations.append({"image_id": image_id, "file_name": name, "segments_info": segments})
    content = {"images": images, "annotations": annotations, "categories": categories}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(content))
    print("\n".join(tally.lines({c["id"]: c["name"] for c in categories})))


class Tally:
    """What became no segment, over all images.

    Args:
        is_thing: class id -> whether it is a thing.
    """

    def __init__(self, is_thing: Mapping[int, bool]) -> None:
        self.is_thing = is_thing
        self.void: Counter[int] = Counter()
        self.segments: Counter[int] = Counter()
        self.lost = 0

    def add(self, masks: Masks, segments: Sequence[Mapping[str, Any]]) -> None:
        """Count one image."""
        values, counts = np.unique(masks.semantic, return_counts=True)
        self.void.update(
            {
                v: n
                for v, n in zip(values.tolist(), counts.tolist(), strict=True)
                if v not in self.is_thing
            }
        )
        self.segments.update(segment["category_id"] for segment in segments)
        things = [c for c, is_thing in self.is_thing.items() if is_thing]
        seen = masks.instances[np.isin(masks.semantic, things)]
        self.lost += len(np.setdiff1d(masks.instances, [*np.unique(seen), 0]))

    def lines(self, names: Mapping[int, str]) -> list[str]:
        """The counts in words, and a doubt where they look like ids that are one off."""
        shown = ", ".join(f"{v} ({n} pixels)" for v, n in sorted(self.void.items()))
        lines = [f"void semantic values: {shown or 'none'}"]
        empty = [c for c in sorted(names) if not self.segments[c]]
        if empty:
            named = ", ".join(f"{c} {names[c]}" for c in empty[:10])
            lines.append(f"classes without a segment: {named}{', ...' if empty[10:] else ''}")
        if self.lost:
            lines.append(f"instances without a pixel of a thing, left out: {self.lost}")
        first, last = min(names), max(names)
        if (self.void[first - 1] and last in empty) or (self.void[last + 1] and first in empty):
            lines.append(
                f"warning: the value beside the ids {first} to {last} of the classes is void "
                "and the class at the other end has no segment: are the ids in --classes one off?"
            )
        return lines


def read_masks(args: argparse.Namespace, image: Path) -> Masks:
    """The masks of the image of this relative path."""
    if args.format == "cityscapes":
        name = image.parent / f"{_city_stem(image)}{CITYSCAPES}.png"
        values = read_label(str(args.instances / name)).astype(np.int64)
        has_instance = values >= 1000
        semantic = np.where(has_instance, values // 1000, values)
        return Masks(semantic, np.where(has_instance, values, 0), values)
    semantic = read_label(_mask(args.semantic, image)).astype(np.int64)
    file = _mask(args.instances, image)
    color = read_image(file, "raw").shape[2] >= 3
    values = read_label(file, color=color).astype(np.int64)
    if args.format == "ade20k":
        if not color:
            raise DatasetError(f"{file}: ADE20K's instance masks are RGB")
        # Instances are numbered anew in each class.
        values = np.where(values[..., 1] > 0, values[..., 0] * 256 + values[..., 1], 0)
    elif color:
        values = values @ np.array([1, 256, 65536])
    if values.shape != semantic.shape:
        raise DatasetError(f"{image}: masks of {semantic.shape} and {values.shape}")
    return Masks(semantic, values)


def panoptic_segments(
    masks: Masks, is_thing: Mapping[int, bool], void: Sequence[int], *, majority: bool = False
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Segment ids (H, W) uint32, 0 = void, and COCO's ``segments_info``.

    Args:
        masks: of one image.
        is_thing: class id -> whether it is a thing.
        void: semantic values without a class.
        majority: an instance of several classes takes the most frequent one.

    Raises:
        DatasetError: a semantic value that is neither class nor void, or an instance of several
            classes.
    """
    semantic = masks.semantic.astype(np.int64)
    classes = np.array(sorted(is_thing), np.int64)
    unknown = np.setdiff1d(semantic, np.concatenate([classes, np.array(void, np.int64)]))
    if unknown.size:
        raise DatasetError(
            f"semantic values {unknown[:5].tolist()} are neither classes nor named by --void"
        )
    things = np.array([c for c in classes if is_thing[int(c)]], np.int64)
    of_thing = np.isin(semantic, things)
    instances = np.where(of_thing, masks.instances, 0)
    if masks.segment_ids is None and not majority:
        _check_one_class(semantic, instances)
    if majority:
        semantic = _majority(semantic, instances, of_thing)
    known = np.isin(semantic, classes)
    pairs = np.stack([semantic[known], instances[known]], axis=1)
    keys, inverse, areas = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    place = np.zeros(semantic.shape, np.int64)
    place[known] = inverse.reshape(-1) + 1
    numbers = np.arange(len(keys) + 1)
    if masks.segment_ids is not None:
        numbers[place[known]] = masks.segment_ids[known]
    segments = []
    for i, (category, instance) in enumerate(keys.tolist(), start=1):
        segments.append(
            {
                "id": int(numbers[i]),
                "category_id": category,
                "area": int(areas[i - 1]),
                "bbox": _box(place == i),
                "iscrowd": int(is_thing[category] and instance == 0),
            }
        )
    return numbers[place].astype(np.uint32), segments


def _check_one_class(semantic: np.ndarray, instances: np.ndarray) -> None:
    inside = instances > 0
    pairs = np.unique(np.stack([instances[inside], semantic[inside]], axis=1), axis=0)
    repeated = pairs[1:][pairs[1:, 0] == pairs[:-1, 0], 0]
    if repeated.size:
        number = repeated[0]
        found = pairs[pairs[:, 0] == number, 1].tolist()
        raise DatasetError(
            f"instance {number} has pixels of the classes {found}, so it would be a segment twice: "
            "correct the masks, or let --majority decide"
        )


def _majority(semantic: np.ndarray, instances: np.ndarray, of_thing: np.ndarray) -> np.ndarray:
    semantic = semantic.copy()
    for number in np.unique(instances[instances > 0]):
        inside = (instances == number) & of_thing
        values, counts = np.unique(semantic[inside], return_counts=True)
        semantic[inside] = values[counts.argmax()]
    return semantic


def check_files(path: Path, folder: Path) -> int:
    """Read a panoptic JSON and its PNGs; returns the number of annotations.

    Raises:
        DatasetError: what :func:`check_annotation` finds, or an image annotated twice.
    """
    content = _read(path)
    things = _things(content["categories"], path)
    seen = set()
    for annotation in content["annotations"]:
        if annotation["image_id"] in seen:
            raise DatasetError(f"image {annotation['image_id']} is annotated twice")
        seen.add(annotation["image_id"])
        file = folder / annotation["file_name"]
        check_annotation(read_segment_ids(str(file)), annotation["segments_info"], things, file)
    return len(seen)


def check_annotation(
    ids: np.ndarray, segments: Sequence[Mapping[str, Any]], is_thing: Mapping[int, bool], file: Path
) -> None:
    """Compare the ids (H, W) of a PNG with its ``segments_info``.

    Raises:
        DatasetError: an id twice, without a pixel or not listed; an unknown category; stuff in
            more than one segment; an area or box that the pixels contradict.
    """
    present, areas = np.unique(ids, return_counts=True)
    found = dict(zip(present.tolist(), areas.tolist(), strict=True))
    found.pop(0, None)
    listed: set[int] = set()
    stuff: set[int] = set()
    for segment in segments:
        number, category = segment["id"], segment["category_id"]

        def fail(reason: str, number: int = number) -> DatasetError:
            return DatasetError(f"{file}: segment {number} {reason}")

        if number in listed:
            raise fail("is listed twice")
        listed.add(number)
        if category not in is_thing:
            raise fail(f"has the unknown category {category}")
        if not is_thing[category]:
            if category in stuff:
                raise fail(f"is a second one of stuff {category}: stuff is one segment per image")
            stuff.add(category)
        if number not in found:
            raise fail("has no pixel")
        if segment["area"] != found[number]:
            raise fail(f"has {found[number]} pixels, its area says {segment['area']}")
        if "bbox" in segment and list(segment["bbox"]) != _box(ids == number):
            raise fail(f"lies in {_box(ids == number)}, its bbox says {segment['bbox']}")
    unlisted = sorted(set(found) - listed)
    if unlisted:
        raise DatasetError(f"{file}: segments {unlisted[:5]} are not in segments_info")


def _box(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())  # a byte order mark is no error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: not readable as JSON ({error})") from None


def _things(categories: Any, path: Path) -> dict[int, bool]:
    """Class id -> whether it is a thing."""
    try:
        things = {int(c["id"]): bool(c["isthing"]) for c in categories if str(c["name"])}
    except (TypeError, ValueError, KeyError) as error:
        raise DatasetError(
            f"{path}: classes should be a list of id, name and isthing ({error!r})"
        ) from None
    if not things or len(things) < len(categories):
        raise DatasetError(f"{path}: no classes, or an id twice")
    return things


def _mask(folder: Path, image: Path) -> str:
    """The mask of an image's name, whatever its suffix."""
    path = Side(folder, "", "").file(image.with_suffix("").as_posix())
    if path is None:
        raise DatasetError(f"{image}: no mask {_png(image)} in {folder}")
    return str(path)


def _png(image: Path) -> str:
    return image.with_suffix(".png").as_posix()


def _city_stem(image: Path) -> str:
    return image.stem.removesuffix("_leftImg8bit")


if __name__ == "__main__":
    main()
