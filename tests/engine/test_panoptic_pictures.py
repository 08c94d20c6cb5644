"""The picture grid of a panoptic dataset: image, ground truth, segments with their ids."""

from __future__ import annotations

import json

import seg_plugins
from seg_plugins.data import apply_custom_dataset
from seg_plugins.engine.run_report import write_pictures
from seg_plugins.visualization import overlays

import cv2
import numpy as np
import torch

# A thing of id 70000 in the middle of stuff of id 7.
IDS = np.full((60, 80), 7)
IDS[15:45, 20:60] = 70000


class Truth(torch.nn.Module):
    """Predicts the truth, but with the ids 1 and 2."""

    def forward(self, batch):
        ids = torch.from_numpy(np.where(IDS == 7, 2, 1))
        segments = [
            {"id": 1, "isthing": True, "category_id": 1, "score": 0.9},
            {"id": 2, "isthing": False, "category_id": 0},
        ]
        return [{"panoptic_seg": (ids, segments)} for _ in batch]


def test_segments_are_drawn_with_their_ids(tmp_path):
    for name in ("images", "panoptic"):
        (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), np.full((60, 80, 3), 128, np.uint8))
    blue_green_red = [IDS >> 16, IDS >> 8 & 255, IDS & 255]
    cv2.imwrite(str(tmp_path / "panoptic/a.png"), np.stack(blue_green_red, 2).astype(np.uint8))
    segments = [
        {"id": 7, "category_id": 1, "area": 3600, "bbox": [0, 0, 80, 60], "iscrowd": 0},
        {"id": 70000, "category_id": 2, "area": 1200, "bbox": [20, 15, 40, 30], "iscrowd": 0},
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 60, "width": 80}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": [
            {"id": 1, "name": "ground", "isthing": 0},
            {"id": 2, "name": "block", "isthing": 1},
        ],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    description = {
        "name": "pictured_panoptic",
        "task": "panoptic",
        "classes": [
            {"name": "ground", "color": [0, 0, 250]},
            {"name": "block", "color": [9, 9, 9], "thing": True},
        ],
        "val": {"images": "images", "panoptic": "panoptic", "json": "panoptic.json"},
        "train": {"images": "images", "panoptic": "panoptic", "json": "panoptic.json"},
    }
    (tmp_path / "my.yaml").write_text(json.dumps(description))
    cfg = seg_plugins.get_cfg()
    cfg.DATASETS.CUSTOM, cfg.OUTPUT_DIR = str(tmp_path / "my.yaml"), str(tmp_path)
    apply_custom_dataset(cfg)
    picture = cv2.imread(str(write_pictures(cfg, Truth())))
    width = picture.shape[1] // 3  # with the gap
    rows = picture[21 : 21 + 240 + 4]  # below the line of titles
    cells = [rows[:, i * width :][:, : width - overlays.GAP] for i in range(3)]
    _, truth, found = cells
    # The same but for the numbers, which the truth goes without.
    different = (truth != found).any(axis=2)
    assert 0 < different.mean() < 0.05
    corner = truth[8, 8].tolist()  # blue over grey, in BGR
    assert corner[0] > corner[2]
    middle = truth[truth.shape[0] // 2 - 20, width // 2 - 60].tolist()
    assert middle != corner
