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
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import nn

from ..data import build_mapper
from ..data.image_io import read_image, read_label
from ..data.panoptic_mapper import read_segment_ids
from ..visualization import overlays, segments
from .atomic_file import write_atomically

logger = logging.getLogger(__name__)


class Pictures(HookBase):
    """Draws ``inference/pictures.png`` when training ends."""

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg

    def after_train(self) -> None:
        """Draw once, unless training was interrupted."""
        if self.trainer.iter + 1 >= self.trainer.max_iter:
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
    records = DatasetCatalog.get(name)
    chosen = np.linspace(0, len(records) - 1, min(cfg.TEST.PICTURES, len(records))).astype(int)
    mapper = build_mapper(cfg, False)
    rows = []
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for index in chosen:
            record = records[int(index)]
            prediction = model([mapper(copy.deepcopy(record))])[0]
            rows.append(_row(record, prediction, name, cfg.INPUT.FORMAT))
    model.train(was_training)
    path = Path(cfg.OUTPUT_DIR) / "inference" / "pictures.png"
    os.makedirs(path.parent, exist_ok=True)
    encoded = cv2.imencode(".png", overlays.grid(rows)[:, :, ::-1])[1].tobytes()
    write_atomically(path, lambda file: file.write(encoded))
    logger.info("Pictures (image | ground truth | prediction): %s", path)
    return path


def _row(
    record: Mapping[str, Any], prediction: Mapping[str, Any], name: str, image_format: str
) -> list[np.ndarray]:
    metadata = MetadataCatalog.get(name)
    # Only "raw" reads every kind of file, where the model takes that.
    stored = read_image(record["file_name"], "raw" if image_format == "raw" else "RGB")
    image = overlays.displayable(stored)
    row = [image]
    if "sem_seg" in prediction and "sem_seg_file_name" in record:
        # Label files may hold other values than the class ids, or colours.
        truth = metadata.get("sem_seg_loading_fn", read_label)(record["sem_seg_file_name"])
        scores = prediction["sem_seg"]
        labels = (scores.argmax(0) if len(scores) > 1 else scores[0] > 0).cpu().numpy()
        colours = np.asarray(metadata.stuff_colors, np.uint8)
        for label in (truth, labels):
            row.append(overlays.semantic(image, label, colours, metadata.get("ignore_label", 255)))
    if "panoptic_seg" in prediction and "pan_seg_file_name" in record:
        colours = np.asarray(metadata.stuff_colors, np.uint8)
        ids, found_segments = prediction["panoptic_seg"]
        for segment_ids, info in (
            (read_segment_ids(record["pan_seg_file_name"]), record["segments_info"]),
            (ids.cpu().numpy(), found_segments),
        ):
            # Ids of the ground truth are too long to be read.
            numbers = info is found_segments
            row.append(segments.panoptic(image, segment_ids, info, colours, numbers=numbers))
    elif "instances" in prediction:
        found = prediction["instances"].to("cpu")
        found = found[found.scores > 0.5]
        shape = image.shape[:2]
        row.append(overlays.instances(image, overlays.annotation_masks(record, shape)))
        masks = np.asarray(found.pred_masks) if found.has("pred_masks") else None
        row.append(overlays.instances(image, masks, found.pred_boxes.tensor.numpy()))
    return row
