from __future__ import annotations

from types import SimpleNamespace

from seg_plugins.visualization.samples import draw

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image


def test_in_a_panoptic_dataset_true_instances_are_the_segments_of_things(tmp_path):
    ids = np.array([[1, 1, 2, 2], [1, 1, 2, 3]], np.uint8)
    Image.fromarray(np.stack([ids, ids * 0, ids * 0], axis=-1)).save(tmp_path / "pan.png")
    Image.fromarray(np.full((2, 4, 3), 100, np.uint8)).save(tmp_path / "image.png")
    record = {
        "file_name": str(tmp_path / "image.png"),
        "pan_seg_file_name": str(tmp_path / "pan.png"),
        "segments_info": [
            {"id": 1, "category_id": 0, "isthing": True},
            {"id": 2, "category_id": 1, "isthing": False},
            {"id": 3, "category_id": 0, "isthing": True, "iscrowd": 1},
        ],
    }
    found = Instances((2, 4), scores=torch.tensor([0.9]), pred_classes=torch.tensor([0]))
    found.pred_boxes = Boxes(torch.tensor([[0.0, 0, 2, 1]]))
    found.pred_masks = torch.tensor([[[1, 1, 1, 0], [1, 1, 0, 0]]], dtype=torch.bool)
    dataset = SimpleNamespace(things=SimpleNamespace(names=["cell"]))
    drawn, _ = draw("instances", record, {"instances": found}, dataset, "RGB")
    error = drawn["error"].astype(int)
    green, blue = error[0, 0], error[0, 2]
    assert green.argmax() == 1
    assert blue.argmax() == 2
    assert (error[1, :2] == green).all()
    assert np.ptp(error[1, 3]) == 0, "a crowd is no error"
