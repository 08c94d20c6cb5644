"""Damaged annotations and images cause a DatasetError naming the file, and nothing else."""

from __future__ import annotations

import copy
import io
import json
import random
from pathlib import Path

from seg_plugins.data import DatasetError
from seg_plugins.data.datasets.class_table import ClassTable, DatasetClass
from seg_plugins.data.datasets.coco_instances import read_instances
from seg_plugins.data.datasets.coco_panoptic import read_panoptic
from seg_plugins.data.doctor.annotations import judge_annotations
from seg_plugins.data.doctor.samples import check_sample
from seg_plugins.io.images import read_image, read_label

import numpy as np
import pytest
from PIL import Image

TABLE = ClassTable((DatasetClass("cat", (1, 2, 3), True), DatasetClass("sky", (4, 5, 6), False)))
IMAGES = [{"id": i, "file_name": f"{i}.png", "height": 8, "width": 9} for i in range(3)]
CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "sky"}]
INSTANCES = {
    "images": IMAGES,
    "categories": CATEGORIES[:1],
    "annotations": [
        {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 4, 4], "iscrowd": 0,
         "area": 16, "segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]]},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 8], "iscrowd": 1,
         "area": 60, "segmentation": {"size": [8, 9], "counts": [12, 60]}},
        {"id": 3, "image_id": 2, "category_id": 1, "bbox": [0, 0, 9, 8], "iscrowd": 0,
         "area": 60, "segmentation": {"size": [8, 9], "counts": "<l1"}},
    ],
}  # fmt: skip
PANOPTIC = {
    "images": IMAGES,
    "categories": CATEGORIES,
    "annotations": [
        {"image_id": i, "file_name": f"{i}.png", "segments_info": [
            {"id": 7, "category_id": 1, "area": 36, "bbox": [0, 0, 9, 4], "iscrowd": 0},
            {"id": 300, "category_id": 2, "area": 36, "bbox": [0, 4, 9, 4], "iscrowd": 0},
        ]} for i in range(3)
    ],
}  # fmt: skip
STRANGE = [
    None, True, -1, 0, 1 << 70, -(1 << 70), 1e308, float("nan"), float("inf"), 0.5, "", "x",
    "../../x", "/etc/passwd", "C:\\x", "\0", "é" * 300, "\ud800", [], [[]], [[[]]], {}, {"id": 1},
    [1], [None], ["a"], [1e12] * 6, [-5] * 5, "1", "false", [1, 1, 5, 1, 5, 5], [[1, 1]], [0] * 4,
]  # fmt: skip


def mutate(content, rng: random.Random):
    """A few changes anywhere in a decoded JSON value."""
    content = copy.deepcopy(content)
    for _ in range(rng.randint(1, 3)):
        node, path = content, []
        while isinstance(node, (dict, list)) and node and (not path or rng.random() < 0.8):
            key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
            path.append((node, key))
            node = node[key]
        parent, key = path[-1]
        action = rng.random()
        if action < 0.15:
            del parent[key]
        elif action < 0.3 and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        else:
            parent[key] = copy.deepcopy(rng.choice(STRANGE))
    return content


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    ids = np.zeros((8, 9, 3), np.uint8)
    ids[:4, :, 0], ids[4:, :, 0], ids[4:, :, 1] = 7, 44, 1
    for image in IMAGES:
        Image.fromarray(ids).save(folder / image["file_name"])
    return folder


def survive(read, path: Path) -> bool:
    """Whether the file was read at all; checks every record that came out of it."""
    reported = []
    try:
        records = read(reported.append)
    except DatasetError as error:
        reported.append(error)
        records = None
    assert all(path.name in str(error) for error in reported)
    judge_annotations([check_sample(record, 2, 1, 255) for record in records or ()])
    return records is not None


def fuzz_annotations(folder: Path, count: int) -> None:
    rng = random.Random(0)
    path = folder / "annotations.json"
    read = 0
    for number in range(count):
        panoptic = number % 2
        text = json.dumps(mutate(PANOPTIC if panoptic else INSTANCES, rng))
        if rng.random() < 0.1:
            cut = rng.randrange(len(text))
            text = text[:cut] + rng.choice(["", "}", "\0", "[" * 5000]) + text[cut + 1 :]
        path.write_text(text)
        if panoptic:
            read += survive(lambda note: read_panoptic(path, folder, folder, TABLE, note), path)
        else:
            read += survive(lambda note: read_instances(path, folder, TABLE.things, note), path)
    assert read > count / 4  # the damage is often small enough to get past the first checks


def fuzz_images(folder: Path, count: int) -> None:
    rng = random.Random(1)
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    originals = []
    for suffix, options in ((".png", {}), (".jpg", {}), (".tif", {}), (".bmp", {}),
                            (".tif", {"compression": "tiff_lzw"}), (".gif", {})):  # fmt: skip
        for mode in ("RGB", "L"):
            stream = io.BytesIO()
            kind = {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:].upper())
            Image.fromarray(pixels).convert(mode).save(stream, kind, **options)
            originals.append((suffix, stream.getvalue()))
    for number in range(count):
        suffix, content = rng.choice(originals)
        damaged = bytearray(content)
        if rng.random() < 0.3:
            damaged = damaged[: rng.randrange(len(damaged))]
        for _ in range(rng.randint(1, 8)):
            if damaged:
                place = rng.randrange(min(len(damaged), rng.choice([40, 200, 10**6])))
                damaged[place] = rng.randrange(256)
        path = folder / f"damaged{number % 10}{suffix}"
        path.write_bytes(bytes(damaged))
        for read in (read_image, lambda name: read_image(name, "raw"), read_label):
            message = path.name
            try:
                read(str(path))
            except DatasetError as error:
                message = str(error)
            assert path.name in message


@pytest.mark.filterwarnings("ignore")
def test_damaged_annotations(folder):
    fuzz_annotations(folder, 1000)


@pytest.mark.filterwarnings("ignore")
def test_damaged_images(folder):
    fuzz_images(folder, 150)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ten_thousand_damaged_annotations(folder):
    fuzz_annotations(folder, 10_000)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_thousand_damaged_images(folder):
    fuzz_images(folder, 1000)
