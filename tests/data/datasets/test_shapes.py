"""The generated dataset: frozen files, real formats, and no colour that tells the class."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from pathlib import Path

from seg_plugins.data import DatasetError
from seg_plugins.data.datasets import shapes
from seg_plugins.data.datasets.shapes_scene import CLASSES

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from pycocotools.coco import COCO

# SHA-256 over the decoded pixels of all PNGs of a kind in the order of their names, and over the
# annotation files without white space: a change of any of them is a new version of the dataset.
FROZEN = {
    "images": "2d517aa34389dc5198179b24a6385beb988f00735e99fe9b762528ec7db9d72e",
    "labels": "a1ecf4b33a31736c92626517a9ae2e91b38cf4ae9e9313c90358eecf36afad9c",
    "panoptic": "00c2994d466f91118e99cdfa2499c248d320936dcb9b33a81e527774eebd7072",
    "annotations": "a3dca3e40ebda4a9f4374aa1e6f8d08ddbd65544cc25ee0a2381527894f7d615",
}


@pytest.fixture(scope="module")
def folder() -> Path:
    return shapes.ensure_shapes()


def _digest(folder: Path, kind: str) -> str:
    digest = hashlib.sha256()
    for path in sorted((folder / kind).rglob("*.*")):
        digest.update(path.relative_to(folder).as_posix().encode())
        if path.suffix == ".png":
            digest.update(cv2.imread(str(path), cv2.IMREAD_UNCHANGED).tobytes())
        else:
            content = json.loads(path.read_text())
            digest.update(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
    return digest.hexdigest()


def test_files_are_frozen(folder):
    assert {kind: _digest(folder, kind) for kind in FROZEN} == FROZEN


def test_every_class_and_ignored_pixels_occur_in_both_splits():
    for split in shapes.SPLITS:
        records = DatasetCatalog.get(f"shapes_{split}")
        assert len(records) == shapes.SPLITS[split]
        ids = [np.unique(cv2.imread(r["sem_seg_file_name"], -1)) for r in records]
        assert set(np.unique(np.concatenate(ids))) == {*range(len(CLASSES)), 255}


def test_coco_api_decodes_every_instance_to_its_pixels(folder):
    """Polygons and crowds rasterise to the visible pixels: area, box, label and overlap agree."""
    coco = COCO(str(folder / "annotations/instances_val.json"))
    for image_id, image in coco.imgs.items():
        label = cv2.imread(str(folder / "labels/val" / image["file_name"]), -1)
        covered = np.zeros_like(label)
        for annotation in coco.imgToAnns[image_id]:
            mask = coco.annToMask(annotation)
            assert mask.sum() == annotation["area"]
            assert list(cv2.boundingRect(mask)) == annotation["bbox"]
            assert (label[mask > 0] == annotation["category_id"] - 1).all()
            covered += mask
        assert np.array_equal(covered, label < 6)
    crowds = [a for a in coco.anns.values() if a["iscrowd"]]
    assert crowds
    assert all(isinstance(a["segmentation"]["counts"], list) for a in crowds)


def test_panoptic_png_and_json_agree(folder):
    content = json.loads((folder / "annotations/panoptic_val.json").read_text())
    for annotation in content["annotations"]:
        bgr = cv2.imread(str(folder / "panoptic/val" / annotation["file_name"])).astype(int)
        ids = bgr @ [65536, 256, 1]
        label = cv2.imread(str(folder / "labels/val" / annotation["file_name"]), -1)
        assert {s["id"] for s in annotation["segments_info"]} == set(np.unique(ids)) - {0}
        for segment in annotation["segments_info"]:
            mask = ids == segment["id"]
            assert mask.sum() == segment["area"]
            assert (label[mask] == segment["category_id"] - 1).all()
        assert np.array_equal(ids == 0, label == 255)


def _pixel_features(folder: Path, split: str, every: int) -> tuple[torch.Tensor, torch.Tensor]:
    """RGB and its 5x5 mean of the valid pixels, in [-1, 1], and their classes."""
    features, classes = [], []
    for path in sorted((folder / "images" / split).iterdir())[::every]:
        image = cv2.imread(str(path)).astype(np.float32) / 127.5 - 1
        label = cv2.imread(str(path).replace("images", "labels"), cv2.IMREAD_UNCHANGED)
        both = np.concatenate([image, cv2.blur(image, (5, 5))], axis=2)
        features.append(both[label != 255])
        classes.append(label[label != 255])
    return torch.from_numpy(np.concatenate(features)), torch.from_numpy(np.concatenate(classes))


def test_color_does_not_give_the_class_away(folder):
    """A small network on each pixel's RGB and 5x5 mean stays far below 40 mIoU.

    It has the colours, their products and the contrast to the mean, and a loss weighted by
    class, so that it cannot get away with the most frequent one.
    """
    x, y = _pixel_features(folder, "train", every=4)
    frequency = torch.bincount(y.long(), minlength=len(CLASSES)).float()
    net = torch.nn.Sequential(
        torch.nn.Linear(9, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(),
        torch.nn.Linear(64, len(CLASSES)),
    )  # fmt: skip

    def run(x: torch.Tensor) -> torch.Tensor:
        return net(torch.cat([x, 10 * (x[:, :3] - x[:, 3:]).abs()], dim=1))

    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for balance in (0.0, 0.5):
        weight = (frequency.mean() / frequency) ** balance
        for _ in range(300):
            batch = torch.randint(len(x), (4096,))
            loss = torch.nn.functional.cross_entropy(run(x[batch]), y[batch].long(), weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        x_val, y_val = _pixel_features(folder, "val", every=2)
        with torch.no_grad():
            predicted = run(x_val).argmax(dim=1)
        pairs = np.bincount(y_val.numpy() * 8 + predicted.numpy(), minlength=64).reshape(8, 8)
        iou = np.diag(pairs) / (pairs.sum(0) + pairs.sum(1) - np.diag(pairs))
        assert 2 < 100 * iou.mean() < 40


def test_metadata_names_the_files_that_evaluators_read():
    DatasetCatalog.get("shapes_panoptic_val")
    metadata = MetadataCatalog.get("shapes_panoptic_val")
    assert Path(metadata.json_file).is_file()
    assert Path(metadata.panoptic_json).is_file()
    assert Path(metadata.panoptic_root).is_dir()
    assert metadata.stuff_classes[:6] == metadata.thing_classes


@pytest.fixture
def small(monkeypatch, tmp_path) -> Path:
    """A root of its own and few images, for tests of how the files come into place."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "root"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write = shapes.write_shapes
    monkeypatch.setattr(shapes, "write_shapes", lambda f: write(f, {"train": 2, "val": 1}))
    return tmp_path


def test_an_older_version_is_replaced(small):
    folder = shapes.ensure_shapes()
    (folder / "version.json").write_text('{"version": 0}')
    (folder / "images/train/0000.png").unlink()
    assert shapes.ensure_shapes() == folder
    assert (folder / "images/train/0000.png").is_file()
    assert [p.name for p in folder.parent.iterdir()] == ["shapes"]


def test_a_folder_of_the_user_is_not_touched(small):
    (small / "root/shapes").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"no version\.json.*DETECTRON2_DATASETS"):
        shapes.ensure_shapes()
    assert list((small / "root/shapes").iterdir()) == []


def test_a_read_only_root_falls_back_to_the_cache(small, monkeypatch):
    root = small / "root"
    monkeypatch.setattr(shapes, "_is_writable", lambda parent: parent != root and _make(parent))
    assert shapes.ensure_shapes() == small / "cache/seg_plugins/datasets/shapes"


def _make(parent: Path) -> bool:
    parent.mkdir(parents=True, exist_ok=True)
    return True


def _ensure(root: str, results) -> None:
    os.environ["DETECTRON2_DATASETS"] = root
    folder = shapes.ensure_shapes()
    results.put((str(folder), len(list(folder.rglob("*.png")))))


def test_processes_that_start_together_all_get_the_whole(small):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [
        context.Process(target=_ensure, args=(str(small / "root"), results)) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    got = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert got == [(str(small / "root/shapes"), 9)] * 4
    assert [p.name for p in (small / "root").iterdir()] == ["shapes"]
