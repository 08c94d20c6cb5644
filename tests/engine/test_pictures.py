"""The picture grid of datasets whose files are no RGB images with class ids."""

from __future__ import annotations

import seg_plugins
from seg_plugins.data import apply_custom_dataset
from seg_plugins.engine.run_report import write_pictures
from seg_plugins.visualization import overlays

import cv2
import numpy as np
import pytest
import torch
import yaml

IDS = np.tile(np.array([0, 1], np.uint8).repeat(40), (60, 1))


class Truth(torch.nn.Module):
    """Predicts the labels themselves."""

    def forward(self, batch):
        scores = torch.nn.functional.one_hot(torch.from_numpy(IDS).long(), 2)
        return [{"sem_seg": scores.permute(2, 0, 1).float()} for _ in batch]


@pytest.mark.parametrize("labels", ["index", "colours"])
def test_the_ground_truth_is_drawn_by_class(tmp_path, labels):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    classes = [
        {"name": "other", "color": [9, 9, 9], "value": 0},
        {"name": "object", "color": [250, 0, 0], "value": 255},
    ]
    for number in range(2):
        slice_ = np.linspace(-1000, 1000, IDS.size, dtype=np.float32).reshape(IDS.shape)
        np.save(tmp_path / f"images/{number}.npy", slice_)
        mask = IDS * 255
        if labels == "colours":
            mask = np.array([c["color"][::-1] for c in classes], np.uint8)[IDS]
        cv2.imwrite(str(tmp_path / f"masks/{number}.png"), mask)
    description = {
        "name": f"pictured_{labels}", "task": "semantic", "classes": classes, "labels": labels,
        "images": "images", "masks": "masks", "image_suffix": ".npy", "ignore_label": 254,
        "split": {"val_fraction": 0.5},
    }  # fmt: skip
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(description))
    cfg = seg_plugins.get_cfg()
    cfg.DATASETS.CUSTOM, cfg.OUTPUT_DIR = str(tmp_path / "my.yaml"), str(tmp_path)
    cfg.INPUT.FORMAT = "raw"
    apply_custom_dataset(cfg)
    picture = cv2.imread(str(write_pictures(cfg, Truth())))
    width = picture.shape[1] // 3  # with the gap
    rows = picture[21 : 21 + 240 + 4]  # below the line of titles
    cells = [rows[:, i * width :][:, : width - overlays.GAP] for i in range(3)]
    assert np.array_equal(cells[1], cells[2])
    assert not np.array_equal(cells[0], cells[1])
    # The right half is red.
    assert (cells[1][2:-6, -width // 4 : -8, 2] > cells[1][2:-6, -width // 4 : -8, 0]).all()
