"""What travels inside an exported file: classes, colours, how to prepare an image."""

from __future__ import annotations

import json
from typing import Any

from detectron2.config import CfgNode

from ..prediction.labels import Label, labels_from_config

#: ``producer`` in the files of this package.
PRODUCER = "seg_plugins"


def file_metadata(
    cfg: CfgNode, task: str, *, precision: str = "float32", **more: Any
) -> dict[str, str]:
    """Text by name, as ONNX and safetensors files hold it; lists are JSON.

    Args:
        cfg: the model's configuration.
        task: ``sem_seg``, ``instances`` or ``panoptic``.
        precision: of the network: ``float32``, ``float16`` or ``int8``.
        **more: what only some systems have.

    Returns:
        ``classes`` (names by id), ``colors`` ([R, G, B] by id), ``task``, ``format`` (channel order
        of the input, ``RGB``, ``BGR``, ``L`` or ``raw``), ``pixel_mean`` and ``pixel_std``,
        ``normalization`` (``inside``: the graph applies them), ``ignore_label``,
        ``min_size_test`` and ``max_size_test`` (to what the shorter and at most the longer side
        were resized in evaluation; 0: not at all), ``config`` (YAML), ``precision``, ``producer``.
        Panoptic systems have ``label_classes`` and ``label_colors`` (of the semantic labels), too.
    """
    labels = labels_from_config(cfg)
    kind: tuple[Label, ...] = labels.stuff if task == "sem_seg" else labels.things
    values: dict[str, Any] = {
        "task": task,
        "classes": [label.name for label in kind],
        "colors": [list(label.color) for label in kind],
        "format": cfg.INPUT.FORMAT,
        "pixel_mean": list(cfg.MODEL.PIXEL_MEAN),
        "pixel_std": list(cfg.MODEL.PIXEL_STD),
        "normalization": "inside",
        "ignore_label": labels.ignore_label,
        "min_size_test": cfg.INPUT.MIN_SIZE_TEST,
        "max_size_test": cfg.INPUT.MAX_SIZE_TEST,
        "config": cfg.dump(),
        "precision": precision,
        "producer": PRODUCER,
        **more,
    }
    if task == "panoptic":
        values["label_classes"] = [label.name for label in labels.stuff]
        values["label_colors"] = [list(label.color) for label in labels.stuff]
    return {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()
    }
