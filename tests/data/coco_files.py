"""Small COCO files and their pictures, written for a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SIDE = 64


def polygon(x: float, y: float, w: float, h: float) -> list[list[float]]:
    """A rectangle as COCO's list of polygons."""
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def annotation(number: int, image_id: int, box: tuple[float, ...], **more: Any) -> dict[str, Any]:
    """A rectangle; `more` replaces fields, and leaves out those that are ...."""
    x, y, w, h = box
    fields = {
        "id": number, "image_id": image_id, "category_id": 1, "bbox": [x, y, w, h],
        "area": w * h, "iscrowd": 0, "segmentation": polygon(x, y, w, h), **more,
    }  # fmt: skip
    return {key: value for key, value in fields.items() if value is not ...}


def content(annotations: list[dict], names: tuple[str, ...] = ("cell",), images: int = 2) -> dict:
    """The content of a file with images 1.png, 2.png, ... of 64x64 pixels."""
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": SIDE, "width": SIDE}
            for i in range(1, images + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
    }


def write(folder: Path, file: dict[str, Any], name: str = "my", val: dict | None = None) -> Path:
    """Write pictures, COCO files and the description of a dataset; returns the latter's path."""
    for image in file["images"]:
        pixels = np.full((SIDE, SIDE, 3), hash(str(image["id"])) % 200, np.uint8)
        pixels[:3, :3] = image["id"]  # no two pictures are equal
        if not (folder / image["file_name"]).exists():
            assert cv2.imwrite(str(folder / image["file_name"]), pixels)
    (folder / "train.json").write_text(json.dumps(file))
    classes = [category["name"] for category in file["categories"]]
    description = {"name": name, "task": "instance", "classes": classes}
    description["train"] = {"images": ".", "json": "train.json"}
    if val is not None:
        (folder / "val.json").write_text(json.dumps(val))
        description["val"] = {"images": ".", "json": "val.json"}
    path = folder / "my.yaml"
    path.write_text(json.dumps(description))  # JSON is YAML
    return path
