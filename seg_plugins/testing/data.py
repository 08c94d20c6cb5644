"""What datasets and mappers must do."""

from __future__ import annotations

import copy
import inspect
import random
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode

from ..data import Dataset, build_mapper
from ..data.doctor import check_dataset as examine


def check_dataset(name: str, *, max_samples: int | None = None) -> None:
    """Hold a registered dataset against the contract.

    Its records are Detectron2's, of a known task, with classes in the metadata; files exist and
    can be read, labels and boxes are in their ranges: no error that ``seg-plugins check``
    would report. Loading it twice gives the same records.

    Args:
        name: of the dataset.
        max_samples: look at this many; None at all.

    Raises:
        AssertionError: lists what is wrong.
    """
    report = examine(name, max_samples=max_samples, workers=1)
    assert not report.errors, report.table()
    dataset = Dataset.get(name)
    assert dataset.records, f"{name} has no samples"
    task = dataset.task
    assert len(getattr(dataset, "stuff" if task.class_list == "stuff_classes" else "things")), (
        f"{name}: the metadata lists no {task.class_list}"
    )
    files = [str(record["file_name"]) for record in dataset.records]
    Dataset.forget(name)
    again = [str(record["file_name"]) for record in Dataset.get(name).records]
    assert files == again, f"{name}: loaded again, it has other records or another order"


def check_mapper(cfg: CfgNode, *, count: int = 2) -> None:
    """Hold the mapper of a configuration against the contract, on its datasets.

    It leaves the record as it is, gives ``image`` (C, H, W) and in training labels of the same
    height and width and Instances of that size, and with the same random state the same sample.

    Args:
        cfg: with ``DATASETS.TRAIN`` and perhaps ``INPUT.MAPPER``.
        count: samples to try.

    Raises:
        AssertionError: names what does not hold.
    """
    names = cfg.DATASETS.TRAIN or cfg.DATASETS.TEST
    assert names, "the configuration names no dataset"
    records = Dataset.get(names[0]).records[:count]
    keys = {"sem_seg", "instances"}
    for is_train in (True, False):
        mapper = build_mapper(cfg, is_train)
        name = type(mapper).__name__
        for record in records:
            given = copy.deepcopy(dict(record))
            sample = _mapped(mapper, given)
            assert given == dict(record), f"{name} changes the record of {record['file_name']}"
            image = sample["image"]
            assert torch.is_tensor(image), f"{name}: 'image' is no tensor"
            assert image.dim() == 3, f"{name}: 'image' of shape {tuple(image.shape)}"
            if not is_train:
                continue
            size = tuple(image.shape[-2:])
            assert keys & sample.keys(), f"{name} gives no labels in training: {list(sample)}"
            if "sem_seg" in sample:
                shape = tuple(sample["sem_seg"].shape)
                assert shape == size, f"{name}: 'sem_seg' {shape} for an image {size}"
            if "instances" in sample:
                own = sample["instances"].image_size
                assert own == size, f"{name}: 'instances' of size {own} for an image {size}"
            assert _equal(_mapped(mapper, given), sample), (
                f"{name}: with the same random state another sample: draw from the generator `rng` "
                "that it is called with; without an argument `rng`, from the global ones"
            )


def _mapped(mapper: Any, record: Any) -> dict[str, Any]:
    """As the training calls it: with a generator, or with the global ones in a known state."""
    if "rng" in inspect.signature(mapper).parameters:
        return mapper(record, rng=np.random.default_rng(0))
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return mapper(record)


def _equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    tensors = [key for key in ("image", "sem_seg", "sem_seg_weights") if key in first]
    return (
        first.keys() == second.keys()
        and all(torch.equal(first[key], second[key]) for key in tensors)
        and _objects(first) == _objects(second)
    )


def _objects(sample: dict[str, Any]) -> list[list[float]] | None:
    instances = sample.get("instances")
    return None if instances is None else instances.gt_boxes.tensor.tolist()
