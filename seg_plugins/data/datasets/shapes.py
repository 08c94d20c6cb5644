"""The embedded dataset: scenes of shapes, written to disk in the formats of the real datasets.

::

    shapes/
      version.json                          what made the files
      images/{train,val}/0000.png           RGB
      labels/{train,val}/0000.png           class ids, 255 = ignore
      annotations/instances_{train,val}.json    COCO instances: polygons, a crowd as RLE
      annotations/panoptic_{train,val}.json     COCO panoptic
      panoptic/{train,val}/0000.png             its segment ids, R + 256 G + 65536 B

The files are made on first use, below the dataset root or, if that is read-only, below the user's
cache folder. They are made beside their place and renamed, so that a reader sees all or nothing,
also with several processes.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...io.masks import to_polygons
from ..errors import DatasetError
from .root import dataset_root, user_cache_dir
from .shapes_scene import CLASSES, NUM_THINGS, Scene, make_scene

__all__ = ["SPLITS", "STAMP", "ensure_shapes", "write_shapes"]

# Images of each split.
SPLITS = {"train": 800, "val": 100}
# Raise the version with any change of the files.
_SEED = 20150611
STAMP = {"dataset": "seg_plugins shapes", "version": 6, "seed": _SEED, **SPLITS}


def ensure_shapes() -> Path:
    """Path of the dataset; it is generated first where it is missing or of another version.

    Raises:
        DatasetError: there is a folder ``shapes`` that this function did not make.
    """
    for parent in (dataset_root(), user_cache_dir() / "datasets"):
        folder = parent / "shapes"
        if _is_current(folder):
            return folder
        if _is_writable(parent):
            return _generate(folder)
    raise DatasetError(
        f"Neither {dataset_root().resolve()} nor {user_cache_dir()} can be written to; "
        "set DETECTRON2_DATASETS to a folder for datasets that can."
    )


def _is_current(folder: Path) -> bool:
    """Whether `folder` holds this version; False where there is nothing or an older version."""
    stamp = folder / "version.json"
    if not stamp.is_file():
        if folder.exists():
            raise DatasetError(
                f"{folder.resolve()} is in the place of the generated dataset but was not made "
                "by it (no version.json); move it away or set DETECTRON2_DATASETS to another "
                "folder."
            )
        return False
    try:
        return json.loads(stamp.read_text()) == STAMP
    except json.JSONDecodeError:
        return False


def _is_writable(parent: Path) -> bool:
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=parent):
            return True
    except OSError:
        return False


def _generate(folder: Path) -> Path:
    logging.getLogger(__name__).info("Generating the shapes dataset in %s", folder)
    made = Path(tempfile.mkdtemp(prefix="shapes.tmp-", dir=folder.parent))
    try:
        write_shapes(made)
        made.chmod(0o755)
        for _ in range(3):
            try:
                os.rename(made, folder)
            except OSError:
                # Another process was faster, or an older version is in the way.
                if _is_current(folder):
                    break
                if not folder.exists():
                    raise
                old = Path(tempfile.mkdtemp(prefix="shapes.old-", dir=folder.parent))
                os.rename(folder, old / "shapes")
                shutil.rmtree(old)
            else:
                break
    finally:
        shutil.rmtree(made, ignore_errors=True)
    if not _is_current(folder):
        raise DatasetError(f"{folder} could not be put in place; another process keeps changing it")
    return folder


def write_shapes(folder: Path, splits: dict[str, int] | None = None) -> None:
    """Write the dataset into an empty folder.

    Args:
        folder: an existing folder.
        splits: images of each split, at most as many as in `SPLITS`; None writes all.
    """
    for number, (split, count) in enumerate(SPLITS.items()):
        count = count if splits is None else splits.get(split, 0)
        writer = _SplitWriter(folder, split)
        for index in range(count):
            rng = np.random.default_rng([_SEED, number, index])
            writer.add(make_scene(rng))
        writer.finish()
    (folder / "version.json").write_text(json.dumps(STAMP, indent=1) + "\n")


class _SplitWriter:
    """Writes the scenes of one split and gathers their annotations."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder = folder
        self.split = split
        self.images: list[dict[str, Any]] = []
        self.instances: list[dict[str, Any]] = []
        self.panoptic: list[dict[str, Any]] = []
        for kind in ("images", "labels", "panoptic"):
            (folder / kind / split).mkdir(parents=True)
        (folder / "annotations").mkdir(exist_ok=True)

    def add(self, scene: Scene) -> None:
        image_id = len(self.images) + 1
        name = f"{image_id - 1:04d}.png"
        height, width = scene.labels.shape
        self.images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        ids = np.zeros((height, width, 3), np.uint8)
        segments = []
        for number, segment in enumerate(scene.segments):
            area = int(segment.mask.sum())
            category = segment.class_id + 1
            segment_id = category * 1000 + number
            ids[segment.mask] = segment_id % 256, segment_id // 256, 0
            record = {
                "id": segment_id,
                "category_id": category,
                "area": area,
                "bbox": _box(segment.mask),
                "iscrowd": int(segment.is_crowd),
            }
            segments.append(record)
            if segment.class_id < NUM_THINGS:
                self.instances.append(
                    {
                        **record,
                        "id": len(self.instances) + 1,
                        "image_id": image_id,
                        "segmentation": _segmentation(segment.mask, segment.is_crowd),
                    }
                )
        self.panoptic.append({"image_id": image_id, "file_name": name, "segments_info": segments})
        self._write("images", name, scene.image[..., ::-1])
        self._write("labels", name, scene.labels)
        self._write("panoptic", name, ids[..., ::-1])

    def _write(self, kind: str, name: str, pixels: np.ndarray) -> None:
        path = self.folder / kind / self.split / name
        if not cv2.imwrite(str(path), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 2]):
            raise DatasetError(f"{path} could not be written")

    def finish(self) -> None:
        categories = [
            {"id": i + 1, "name": name, "supercategory": "shape", "isthing": int(i < NUM_THINGS)}
            for i, name in enumerate(CLASSES)
        ]
        things = categories[:NUM_THINGS]
        self._dump("instances", annotations=self.instances, categories=things)
        self._dump("panoptic", annotations=self.panoptic, categories=categories)

    def _dump(self, kind: str, **content: Any) -> None:
        path = self.folder / "annotations" / f"{kind}_{self.split}.json"
        info = {"description": f"{STAMP['dataset']}, version {STAMP['version']}"}
        path.write_text(json.dumps({"info": info, "images": self.images, **content}))


def _box(mask: np.ndarray) -> list[int]:
    """x, y, width, height in pixels."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(xs[0]), int(ys[0]), int(xs[-1] - xs[0] + 1), int(ys[-1] - ys[0] + 1)]


def _segmentation(mask: np.ndarray, is_crowd: bool) -> Any:
    """Polygons, or the uncompressed run lengths that COCO uses for crowds."""
    if not is_crowd:
        return to_polygons(mask)
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    if flat[0]:
        counts.insert(0, 0)  # the first run is background
    return {"size": list(mask.shape), "counts": counts}
