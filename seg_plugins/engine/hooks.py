"""The picture grid that is written when training ends."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn

from ..data import Dataset, build_mapper
from ..io.files import write_atomically
from ..tasks import TASKS
from ..visualization import overlays
from .examples import draw, has_truth, picture_of

logger = logging.getLogger(__name__)


class Pictures(HookBase):
    """Draws ``inference/pictures.png`` when training ends."""

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg

    def after_train(self) -> None:
        """Draw once, unless training was interrupted."""
        if self.trainer.complete:
            model = self.trainer.model
            write_pictures(self.cfg, getattr(model, "module", model))


def write_pictures(cfg: CfgNode, model: nn.Module) -> Path | None:
    """Write a grid of ``TEST.PICTURES`` test samples: image, ground truth, prediction.

    Returns:
        The file, or None where there is nothing to draw.
    """
    if not cfg.TEST.PICTURES or not cfg.DATASETS.TEST or not comm.is_main_process():
        return None
    name = cfg.DATASETS.TEST[0]
    dataset = Dataset.get(name)
    records = dataset.records
    chosen = np.linspace(0, len(records) - 1, min(cfg.TEST.PICTURES, len(records))).astype(int)
    mapper = build_mapper(cfg, False)
    rows = []
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for index in chosen:
            record = records[int(index)]
            prediction = model([mapper(copy.deepcopy(record))])[0]
            rows.append(_row(record, prediction, dataset, cfg.INPUT.FORMAT))
    model.train(was_training)
    path = Path(cfg.OUTPUT_DIR) / "inference" / "pictures.png"
    os.makedirs(path.parent, exist_ok=True)
    encoded = cv2.imencode(".png", overlays.grid(rows)[:, :, ::-1])[1].tobytes()
    write_atomically(path, lambda file: file.write(encoded))
    logger.info("Pictures (image | ground truth | prediction): %s", path)
    return path


def _row(
    record: Mapping[str, Any], prediction: Mapping[str, Any], dataset: Dataset, image_format: str
) -> list[np.ndarray]:
    """The image, and truth and prediction of each task that both have."""
    row = [picture_of(record, image_format)]
    keys = [task.output for task in TASKS if task.output in prediction]
    shown = [key for key in keys if has_truth(key, record)]
    if "panoptic_seg" in shown:  # which shows the instances too
        shown = [key for key in shown if key != "instances"]
    for key in reversed(shown):
        drawn, _ = draw(key, record, prediction, dataset, image_format)
        row += [drawn["truth"], drawn["prediction"]]
    return row
