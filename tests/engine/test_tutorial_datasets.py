"""Datasets registered as in Detectron2's tutorial, with class names and without colours."""

from __future__ import annotations

import json
from pathlib import Path

from seg_plugins.engine import Trainer, argument_parser, setup

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image
from tiny_run import TINY

SIZE = (64, 80)
SHORT = [
    *("MODEL.DEVICE", "cpu", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.MAX_ITER", "2"),
    *("SOLVER.WARMUP_ITERS", "0", "SOLVER.STEPS", "()", "SOLVER.AMP.ENABLED", "False"),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "INPUT.CROP.ENABLED", "False"),
    *("DATALOADER.NUM_WORKERS", "0", "SEED", "7", "TEST.PICTURES", "2"),
    *("TEST.REPORT", "True", "TEST.REPORT_IMAGES", "1"),
]
SMALL_REGIONS = [
    *("MODEL.RESNETS.WIDTH_PER_GROUP", "16", "MODEL.FPN.OUT_CHANNELS", "16"),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", "16", "MODEL.ROI_MASK_HEAD.CONV_DIM", "16"),
    *("MODEL.ROI_HEADS.NUM_CLASSES", "2"),
]


@pytest.fixture
def registered():
    """Registers a training and a test set with this metadata; returns their names."""
    names: list[str] = []

    def register(name: str, records: list[dict], **metadata: object) -> tuple[str, str]:
        for split in ("train", "test"):
            names.append(f"{name}_{split}")
            DatasetCatalog.register(names[-1], lambda: records)
            MetadataCatalog.get(names[-1]).set(**metadata)
        return names[-2], names[-1]

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def ids_of(number: int) -> np.ndarray:
    """Two things, 1 and 2, on stuff, 3."""
    ids = np.full(SIZE, 3)
    ids[8:30, 8 + number : 40] = 1
    ids[34:60, 30 : 70 - number] = 2
    return ids


def write_images(folder: Path, count: int = 4) -> list[dict]:
    records = []
    for number in range(count):
        file = folder / f"{number}.png"
        Image.fromarray(np.repeat(ids_of(number)[..., None] * 70, 3, 2).astype(np.uint8)).save(file)
        records.append(
            {"file_name": str(file), "image_id": number, "height": SIZE[0], "width": SIZE[1]}
        )
    return records


def box_of(mask: np.ndarray) -> list[int]:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return [
        int(columns[0]),
        int(rows[0]),
        int(columns[-1] - columns[0] + 1),
        int(rows[-1] - rows[0] + 1),
    ]


def train(config: str, names: tuple[str, str], folder: Path, *opts: str) -> Path:
    args = argument_parser().parse_args(["--config-file", config])
    args.num_gpus = 0
    data = [f"('{name}',)" for name in names]
    args.opts = [*opts, "DATASETS.TRAIN", data[0], "DATASETS.TEST", data[1]]
    args.opts += [*SHORT, "OUTPUT_DIR", str(folder / "run")]
    cfg = setup(args)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return folder / "run"


def check_pictures(run: Path, kinds: set[str]) -> None:
    assert (run / "inference/pictures.png").is_file()
    assert "Not everything could be shown" not in (run / "report.html").read_text()
    entries = json.loads((run / "inference/examples/examples.json").read_text())
    assert {entry["task"] for entry in entries} == kinds


def test_semantic(registered, tmp_path):
    records = write_images(tmp_path)
    for number, record in enumerate(records):
        record["sem_seg_file_name"] = str(tmp_path / f"{number}_label.png")
        label = (ids_of(number) - 1).astype(np.uint8)
        Image.fromarray(label).save(record["sem_seg_file_name"])
    names = registered(
        "tutorial_semantic", records, stuff_classes=["a", "b", "c"], evaluator_type="sem_seg"
    )
    run = train("quickstart/deeplabv3plus_r18_shapes.yaml", names, tmp_path, *TINY)
    check_pictures(run, {"sem_seg"})


def coco_file(folder: Path, records: list[dict]) -> Path:
    annotations = [
        {"id": len(records) * image["image_id"] + i + 1, "image_id": image["image_id"]}
        | {"category_id": a["category_id"], "bbox": a["bbox"], "iscrowd": 0}
        | {"area": a["bbox"][2] * a["bbox"][3], "segmentation": a["segmentation"]}
        for image in records
        for i, a in enumerate(image["annotations"])
    ]
    images = [
        {"id": r["image_id"], "file_name": Path(r["file_name"]).name}
        | {"height": r["height"], "width": r["width"]}
        for r in records
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate("ab")]
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "instances.json"


@pytest.mark.slow
@pytest.mark.parametrize("names_alone", [False, True])
def test_instances(registered, tmp_path, names_alone):
    """Without a file and an evaluator_type, as in the first lines of Detectron2's tutorial."""
    records = write_images(tmp_path)
    for number, record in enumerate(records):
        record["annotations"] = []
        for thing in (1, 2):
            x, y, w, h = box_of(ids_of(number) == thing)
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            record["annotations"].append(
                {"bbox": [x, y, w, h], "bbox_mode": BoxMode.XYWH_ABS, "category_id": thing - 1}
                | {"segmentation": [outline], "iscrowd": 0}
            )
    metadata = {
        "thing_dataset_id_to_contiguous_id": {0: 0, 1: 1},
        "json_file": str(coco_file(tmp_path, records)),
        "evaluator_type": "coco",
    }
    metadata = {} if names_alone else metadata
    names = registered("tutorial_instances", records, thing_classes=["a", "b"], **metadata)
    run = train("shapes/mask_rcnn_r18_fpn.yaml", names, tmp_path, *SMALL_REGIONS)
    check_pictures(run, {"instances"})


@pytest.mark.slow
def test_panoptic(registered, tmp_path):
    """As `register_coco_panoptic` leaves the metadata, but for the colours."""
    categories = [{"id": i + 5, "name": n, "isthing": int(i < 2)} for i, n in enumerate("abc")]
    records, annotations = write_images(tmp_path), []
    for number, record in enumerate(records):
        ids = ids_of(number)
        name = f"{number}_segments.png"
        Image.fromarray(np.stack([ids, 0 * ids, 0 * ids], 2).astype(np.uint8)).save(tmp_path / name)
        infos = [
            {"id": i, "category_id": i + 4, "iscrowd": 0, "area": int((ids == i).sum())}
            | {"bbox": box_of(ids == i)}
            for i in (1, 2, 3)
        ]
        annotations.append({"image_id": number, "file_name": name, "segments_info": infos})
        record["pan_seg_file_name"] = str(tmp_path / name)
        record["segments_info"] = [
            {**info, "category_id": info["category_id"] - 5, "isthing": info["id"] < 3}
            for info in infos
        ]
    images = [
        {"id": r["image_id"], "file_name": Path(r["file_name"]).name}
        | {"height": r["height"], "width": r["width"]}
        for r in records
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    names = registered(
        "tutorial_panoptic",
        records,
        thing_classes=["a", "b", "c"],
        stuff_classes=["a", "b", "c"],
        thing_dataset_id_to_contiguous_id={5: 0, 6: 1},
        stuff_dataset_id_to_contiguous_id={7: 2},
        panoptic_root=str(tmp_path),
        panoptic_json=str(tmp_path / "panoptic.json"),
        ignore_label=255,
        evaluator_type="coco_panoptic_seg",
    )
    config = "shapes/panoptic_fcn.yaml"
    more = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3", "MODEL.PANOPTIC_FPN.THING_IDS", "[0, 1]")
    run = train(config, names, tmp_path, *SMALL_REGIONS, *more)
    check_pictures(run, {"panoptic_seg"})
