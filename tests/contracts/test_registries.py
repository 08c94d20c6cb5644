"""Everything registered holds its contract: the functions that other packages test theirs with."""

from __future__ import annotations

from seg_plugins import load_config
from seg_plugins.config import config_root
from seg_plugins.data import MAPPER_REGISTRY
from seg_plugins.evaluation import EVALUATOR_REGISTRY
from seg_plugins.modeling.losses import LOSS_REGISTRY
from seg_plugins.tasks import TASKS, task_of_evaluator
from seg_plugins.testing import (
    check_dataset,
    check_evaluator,
    check_instance_system,
    check_loss,
    check_mapper,
    check_semantic_head,
)

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY
from detectron2.structures import BitMasks, Boxes, Instances
from PIL import Image
from pycocotools import mask as coco_mask

SMALL = [
    *("MODEL.VGG.WIDTH", 16, "MODEL.VGG.FC_CHANNELS", 32, "MODEL.UNET.WIDTH", 16),
    *("MODEL.FPN.OUT_CHANNELS", 32, "MODEL.ROI_BOX_HEAD.FC_DIM", 32),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", 16, "TEST.DETECTIONS_PER_IMAGE", 12),
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", 32, "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", 32),
]
SHIPPED = [
    load_config(path, SMALL)
    for folder in ("quickstart", "shapes")
    for path in sorted((config_root() / folder).glob("*.yaml"))
]


def ours(registry) -> list[str]:
    return [name for name, item in registry if item.__module__.startswith("seg_plugins.")]


def config_with(key: str, name: str):
    """The shipped configuration of a small system that names a part."""
    if name == "SemanticSystem":  # any head
        cfg = config_with(key, "DeepLabV3Plus").clone()
        cfg.MODEL.META_ARCHITECTURE = name
        return cfg
    if name == "OneStageInstanceSegmentor":  # any representation
        cfg = config_with(key, "SOLOv2").clone()
        cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.ONE_STAGE.REPRESENTATION = name, "SOLOv2"
        return cfg
    found = [cfg for cfg in SHIPPED if getattr(cfg.MODEL, key, None) == name]
    found += [cfg for cfg in SHIPPED if getattr(cfg.MODEL.SEM_SEG_HEAD, key, None) == name]
    assert found, f"no configuration in quickstart/ or shapes/ has {name}"
    return found[0]


@pytest.mark.parametrize("name", [name for name, _ in LOSS_REGISTRY])
def test_losses(name):
    check_loss(name)


@pytest.mark.parametrize("name", ours(SEM_SEG_HEADS_REGISTRY))
def test_semantic_heads(name):
    check_semantic_head(config_with("NAME", name))


def test_detectron2s_own_head():
    cfg = config_with("NAME", "SemSegPyramidHead").clone()
    cfg.MODEL.SEM_SEG_HEAD.NAME = "SemSegFPNHead"
    with pytest.raises(AssertionError, match="loss_sem_seg is nan where all pixels are ignored"):
        check_semantic_head(cfg)


@pytest.mark.parametrize("name", ours(META_ARCH_REGISTRY))
def test_systems(name):
    cfg = config_with("META_ARCHITECTURE", name)
    tasks = META_ARCH_REGISTRY.get(name).tasks
    if "sem_seg" in tasks:
        check_semantic_head(cfg)
    if "instances" in tasks:
        check_instance_system(cfg)


@pytest.mark.parametrize("name", [n for n in DatasetCatalog.list() if n.startswith("shapes")])
def test_embedded_datasets(name):
    check_dataset(name, max_samples=8)


DATASETS = {"semantic": "shapes_val", "instance": "shapes_instance_val",
            "panoptic": "shapes_panoptic_val"}  # fmt: skip


@pytest.mark.parametrize("name", ours(MAPPER_REGISTRY))
def test_mappers(name):
    (task,) = (task for task in TASKS if task.mapper == name)
    cfg = config_with("META_ARCHITECTURE", "PanopticSegmentor").clone()
    cfg.DATASETS.TRAIN = (DATASETS[task.name],)
    cfg.INPUT.MAPPER, cfg.INPUT.MASK_FORMAT = name, "bitmask"
    check_mapper(cfg)


def semantic_truth(record, classes=8):
    labels = np.asarray(Image.open(record["sem_seg_file_name"]))
    scores = torch.zeros(classes, *labels.shape)
    scores.scatter_(0, torch.from_numpy(np.where(labels < classes, labels, 0)).long()[None], 9.0)
    return scores


def instance_truth(record):
    height, width = record["height"], record["width"]
    annotations = record["annotations"]
    masks = [
        coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(a["segmentation"], height, width)))
        for a in annotations
    ]
    return instances_of(masks, [a["category_id"] for a in annotations], (height, width))


def instances_of(masks, classes, size):
    found = Instances(size)
    found.pred_masks = torch.from_numpy(np.array(masks).reshape(-1, *size)).bool()
    found.pred_boxes = (
        BitMasks(found.pred_masks).get_bounding_boxes() if masks else Boxes(torch.zeros(0, 4))
    )
    found.scores = torch.linspace(0.9, 0.8, len(masks))
    found.pred_classes = torch.tensor(classes, dtype=torch.int64)
    return found


def panoptic_truth(record):
    rgb = np.asarray(Image.open(record["pan_seg_file_name"])).astype(np.int64)
    ids = torch.from_numpy(rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]).int()
    infos = [
        {"id": s["id"], "isthing": s["isthing"], "category_id": s["category_id"], "score": 1.0}
        for s in record["segments_info"]
    ]
    return ids, infos


def perfect(kind):
    def predict(record):
        output = {}
        if "sem_seg_file_name" in record:
            output["sem_seg"] = semantic_truth(record)
        if "annotations" in record:
            output["instances"] = instance_truth(record)
        if kind == "panoptic":
            ids, infos = output["panoptic_seg"] = panoptic_truth(record)
            things = [info for info in infos if info["isthing"]]
            masks = [(ids == info["id"]).numpy() for info in things]
            classes = [info["category_id"] for info in things]
            output["instances"] = instances_of(masks, classes, tuple(ids.shape))
        return output

    return predict


def poor(kind):
    def predict(record):
        output = perfect(kind)(record)
        if "sem_seg" in output:
            output["sem_seg"] = output["sem_seg"].roll(1, 0)
        if "instances" in output:
            output["instances"] = output["instances"][:1]
            output["instances"].pred_boxes.tensor += 5
            output["instances"].pred_masks = output["instances"].pred_masks.roll(9, 2)
        if "panoptic_seg" in output:
            ids, infos = output["panoptic_seg"]
            output["panoptic_seg"] = (ids.roll(9, 1), infos)
        return output

    return predict


# Their truth is Cityscapes' own files: tests/evaluation/test_cityscapes.py writes such.
CITYSCAPES = ("cityscapes_sem_seg", "cityscapes_instance", "cityscapes_panoptic_seg")


@pytest.mark.parametrize("kind", [n for n, _ in EVALUATOR_REGISTRY if n not in CITYSCAPES])
def test_evaluators(kind, tmp_path):
    task = task_of_evaluator(kind)
    base = DATASETS[task.name]
    records = DatasetCatalog.get(base)[:5]
    known = MetadataCatalog.get(base).as_dict()
    if kind in ("sem_seg_em", "sem_seg_volume"):
        known = {**known, "stuff_classes": ["other", "cell"]}
        records = [two_classes(record, i, tmp_path) for i, record in enumerate(records)]
    if kind == "lvis":
        known = {
            **known,
            "thing_frequencies": dict.fromkeys(range(len(known["thing_classes"])), "f"),
        }
        every = {"neg_category_ids": list(range(20)), "not_exhaustive_category_ids": []}
        records = [{**record, **every} for record in records]
    name = f"{base}_{kind}"
    metadata = MetadataCatalog.get(name)
    others = ("name", "evaluator_type", "json_file")  # the truth of these five images alone
    metadata.set(**{k: v for k, v in known.items() if k not in others}, evaluator_type=kind)
    DatasetCatalog.register(name, lambda: records)
    cfg = config_with("META_ARCHITECTURE", "PanopticSegmentor")
    classes = len(known["stuff_classes"]) if task.name == "semantic" else 8
    try:
        results = check_evaluator(
            cfg, name, narrowed(perfect(task.name), classes), narrowed(poor(task.name), classes),
            folder=tmp_path,
        )  # fmt: skip
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    assert results


def two_classes(record, index, folder):
    """The record with labels 0 and 1, as a slice of one of two volumes."""
    labels = np.asarray(Image.open(record["sem_seg_file_name"])) > 3
    file = folder / f"{index}.png"
    Image.fromarray(labels.astype(np.uint8)).save(file)
    return {**record, "sem_seg_file_name": str(file), "volume_id": index % 2}


def narrowed(predict, classes):
    def narrow(record):
        output = predict(record)
        if "sem_seg" in output:
            output["sem_seg"] = output["sem_seg"][:classes]
        return output

    return narrow
