"""Files of a prediction: each is whole or not there, and a record tells which there are."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..io.files import whole_file, write_atomically
from ..io.label_tiff import has_tifffile
from ..io.panoptic import write_segment_ids
from ..io.rasters import has_rasterio
from .coco_files import join_saved, write_summaries
from .errors import PredictionError
from .image_result import ImageResult
from .label_files import FORMATS, LABEL_KINDS, label_array, tiff_of
from .labels import Labels
from .mask_values import mask_values
from .measures import measures
from .objects import object_regions
from .place import place_of
from .regions import Region
from .vectors import check_geopackage, features, geojson, labelme, write_geopackage

KINDS = (
    "overlay", "mask", "color", "cutout", "blur", "json", "panoptic",
    "objects", "geojson", "geopackage", "labelme", "measures",
)  # fmt: skip
# Files of objects that are no pictures.
SUFFIXES = {
    "geojson": ".geojson", "geopackage": ".gpkg", "labelme": ".json", "measures": ".csv",
}  # fmt: skip
RECORDS = "records"


@dataclass(frozen=True)
class OutputOptions:
    """What to write.

    Attributes:
        save: some of `KINDS`.
        classes: what cutout and blur keep; see :meth:`Prediction.foreground`.
        edge: reach of their soft edge in pixels; None goes by the size of the image.
        strength: radius of the blur as a fraction of the shorter side.
        label_files: "png", or "tif" for masks and objects that keep what a TIFF says of its place
            and resolution, and a stack's pages in one file.
        values: of masks of classes; see :func:`.mask_values`.
        clear: classes that overlays leave clear; None: what is called background.
        components: of semantic systems the connected pieces of each class are the regions of the
            record, which ``json`` and the statistics list, not each class as a whole.
    """

    save: tuple[str, ...] = ("overlay",)
    classes: tuple[str, ...] = ()
    edge: int | None = None
    strength: float = 0.03
    label_files: str = "png"
    values: str = "class"
    clear: tuple[str, ...] | None = None
    components: bool = False

    def check(self, labels: Labels) -> None:
        """Raise ValueError where a model with these classes cannot give what is asked for."""
        unknown = [kind for kind in self.save if kind not in KINDS]
        if unknown or not self.save:
            raise PredictionError(
                f"no output '{', '.join(unknown)}'; there are: {', '.join(KINDS)}"
            )
        labels.find(self.classes)
        labels.clear(self.clear)
        mask_values(labels, self.values)
        if self.label_files not in FORMATS:
            raise PredictionError(
                f"label files '{self.label_files}'; there are: {', '.join(FORMATS)}"
            )
        if self.label_files == "tif" and not has_tifffile():
            raise PredictionError(
                "label files as TIFF are written with tifffile: pip install seg_plugins[geo]"
            )
        if self.components and labels.things:
            raise PredictionError(
                "--instances components takes the connected pieces of a semantic system's classes; "
                "this system finds things itself: leave it out"
            )
        if "geopackage" in self.save:
            check_geopackage()
        if {"geojson", "geopackage"} & {*self.save} and not has_rasterio():
            raise PredictionError(
                "geojson and geopackage need rasterio, which finds the outlines: pip install "
                "seg_plugins[geo]"
            )
        if "panoptic" in self.save and not (labels.things and labels.stuff):
            found = "instances" if labels.things else "classes by pixel"
            raise PredictionError(
                f"panoptic output needs a panoptic system; this one finds {found}"
            )


def save_prediction(
    prediction: ImageResult,
    folder: Path,
    name: str,
    options: OutputOptions,
    *,
    file_name: str = "",
    fingerprint: str = "",
    source: Path | None = None,
    elsewhere: Sequence[str] = (),
) -> list[Path]:
    """Write the files of one image and then its record.

    Args:
        prediction: of the image.
        folder: holds a folder for each kind.
        name: of the files, without suffix.
        options: what to write.
        file_name: of the image, for COCO files; empty takes the name.
        fingerprint: of all that the result depends on, for :func:`is_saved`; without one the
            summaries are brought up to date at once, for the first images of a folder.
        source: the image's file, for :func:`source_of`.
        elsewhere: kinds that the caller writes: labels of a stack.

    Raises:
        PredictionError: something is asked for that the model cannot give.
        OSError: a file cannot be written.
    """
    options.check(prediction.labels)
    paths = []
    single = _Objects(prediction, file_name or name, source)
    for kind in options.save:
        if kind == "json" or kind in elsewhere:  # the first stands in the record
            continue
        is_tiff = kind in LABEL_KINDS and options.label_files == "tif"
        suffix = ".tif" if is_tiff else SUFFIXES.get(kind, ".png")
        path = output_path(folder, kind, name, suffix)
        if kind == "panoptic":
            assert prediction.panoptic is not None  # checked above
            with whole_file(path) as temporary:
                write_segment_ids(temporary, _known_ids(prediction))
        elif kind in LABEL_KINDS:
            regions = single.regions if kind == "objects" else None
            label = label_array(prediction, kind, options.values, regions)
            if is_tiff:
                with tiff_of(path, source, kind, prediction.labels, options.values) as file:
                    file.write(label)
            else:
                write_picture(path, label)
        elif kind == "geopackage":
            single.write_geopackage(path)
        elif kind in SUFFIXES:
            write_content(path, single.content(kind))
        else:
            write_picture(path, draw(prediction, kind, options))
        paths.append(path)
    height, width = prediction.image.shape[:2]
    found = single.regions if options.components else prediction.regions
    write_record(
        folder,
        name,
        {
            "name": name,
            "file_name": file_name or name,
            "source": "" if source is None else os.path.abspath(source),
            "height": height,
            "width": width,
            "frames": 1,
            "saved": [kind for kind in options.save if kind not in elsewhere],
            "files": relative(paths, folder),
            "fingerprint": fingerprint,
            "no_data": prediction.no_data,
            "regions": [_region_record(region, options) for region in found],
        },
    )
    if not fingerprint:
        paths += join_saved(folder, folder / RECORDS, prediction.labels)
    return paths


def draw(prediction: ImageResult, kind: str, options: OutputOptions) -> np.ndarray:
    """The picture of one kind: (H, W, 3) RGB or (H, W, 4) RGBA."""
    if kind == "overlay":
        return prediction.draw(clear=options.clear)
    if kind == "color":
        return prediction.color_mask()
    if kind == "cutout":
        return prediction.cutout(options.classes, edge=options.edge)
    return prediction.blur(options.classes, edge=options.edge, strength=options.strength)


def output_path(folder: Path, kind: str, name: str, suffix: str = ".png") -> Path:
    """``folder/kind/name.png``; `name` may have dots and folders."""
    return folder / kind / f"{name}{suffix}"


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write (H, W) ids of 8 or 16 bits, or RGB, or RGBA, as PNG."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(
            picture, cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR
        )
    write_content(path, cv2.imencode(".png", picture)[1].tobytes())


def write_content(path: Path, content: bytes) -> None:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(content))


def write_record(folder: Path, name: str, record: dict[str, Any]) -> None:
    """Note that all files of an image are there; to be called after they are."""
    path = output_path(folder, RECORDS, name, ".json")
    write_content(path, json.dumps(record).encode() + b"\n")


def join(folder: str | Path, labels: Labels) -> list[Path]:
    """Write ``statistics.csv``, ``instances.json`` and ``panoptic.json`` of all saved images.

    Args:
        folder: where :meth:`Prediction.save` wrote them.
        labels: the model's classes.

    Returns:
        The files: the first always, the others where images were saved so.

    Raises:
        PredictionError: nothing was saved there.
    """
    records = Path(folder) / RECORDS
    if not records.is_dir():
        raise PredictionError(f"{folder}: no predictions were saved there")
    return write_summaries(Path(folder), records, labels)


def source_of(folder: Path, name: str) -> Path | None:
    """The input whose results are there under a name, as its record says."""
    try:
        text = json.loads(output_path(folder, RECORDS, name, ".json").read_bytes())["source"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Path(text) if text else None


def is_saved(folder: Path, name: str, fingerprint: str) -> bool:
    """Whether an earlier run wrote everything that this one would."""
    path = output_path(folder, RECORDS, name, ".json")
    try:
        record = json.loads(path.read_bytes())
        files = [folder / file for file in record["files"]]
        return record["fingerprint"] == fingerprint and all(file.is_file() for file in files)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def relative(paths: Sequence[Path], folder: Path) -> list[str]:
    """Paths below a folder as a record holds them."""
    return [path.relative_to(folder).as_posix() for path in paths]


class _Objects:
    """The single objects of a prediction, found once for all outputs that show them."""

    def __init__(self, prediction: ImageResult, file_name: str, source: Path | None) -> None:
        self.prediction, self.file_name, self.source = prediction, file_name, source
        self.height, self.width = prediction.image.shape[:2]

    @cached_property
    def regions(self) -> list[Region]:
        return object_regions(self.prediction)

    def content(self, kind: str) -> bytes:
        if kind == "labelme":
            return labelme(self.regions, self.file_name, self.height, self.width)
        place = place_of(self.source)
        if kind == "geojson":
            return b"".join(geojson(features(self.regions, place), place))
        return measures(self.regions, self.prediction.values, place)

    def write_geopackage(self, path: Path) -> None:
        place = place_of(self.source)
        write_geopackage(path, features(self.regions, place), place)


def _known_ids(prediction: ImageResult) -> np.ndarray:
    """The panoptic ids; 0 where no segment is listed for an id."""
    assert prediction.panoptic is not None
    ids, segments = prediction.panoptic
    return np.where(np.isin(ids, [segment["id"] for segment in segments]), ids, 0)


def _region_record(region: Region, options: OutputOptions) -> dict[str, Any]:
    record: dict[str, Any] = {
        "class": region.label.name,
        "category_id": region.label.category_id,
        "isthing": region.label.is_thing,
        "area": region.area,
        "bbox": region.box,
    }
    if region.score is not None:
        record["score"] = round(region.score, 6)
    if region.segment_id:
        record["id"] = region.segment_id
    if "json" in options.save:
        counts = region.mask["counts"].decode("ascii")
        record["segmentation"] = {"size": region.mask["size"], "counts": counts}
    return record


def class_records(counts: np.ndarray, labels: Labels) -> list[dict[str, Any]]:
    """Regions of a record from (K,) pixels of each class, where there is no mask at hand."""
    return [
        {
            "class": label.name,
            "category_id": label.category_id,
            "isthing": label.is_thing,
            "area": int(count),
        }
        for label, count in zip(labels.stuff, counts, strict=True)
        if count
    ]


def require(kinds: Sequence[str], possible: Sequence[str], what: str, fix: str) -> None:
    """Raise ValueError where a kind of output cannot be had of some kind of input."""
    wrong = [kind for kind in kinds if kind not in possible]
    if wrong:
        raise PredictionError(f"{what} give {', '.join(possible)}, not {', '.join(wrong)}. {fix}")
