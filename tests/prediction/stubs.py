"""Models that give known answers, in Detectron2's output format."""

from __future__ import annotations

from seg_plugins import get_cfg
from seg_plugins.ops.run_length import RunLengthMasks
from seg_plugins.prediction import Predictor
from seg_plugins.prediction.inputs import Preparation
from seg_plugins.prediction.labels import Label, Labels

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from torch import nn

SKY = Label("sky", (0, 0, 200), 7, False)
GRASS = Label("grass", (0, 200, 0), 8, False)
PERSON = Label("person", (200, 0, 0), 1, True)
DOG = Label("dog", (200, 200, 0), 2, True)
PANOPTIC = Labels(things=(PERSON, DOG), stuff=(PERSON, DOG, SKY, GRASS))
SEMANTIC = Labels(stuff=(Label("sky", (0, 0, 200), 0, False), Label("grass", (0, 200, 0), 1, False),
                         Label("person", (200, 0, 0), 2, False)))  # fmt: skip


class RedChannel(nn.Module):
    """The class of a pixel is its red value divided by 80."""

    alignment = 1

    def __init__(self, classes: int = 3, channel: int = 2) -> None:
        super().__init__()
        self.classes, self.channel, self.batches = classes, channel, []

    def forward(self, samples):
        self.batches.append(len(samples))
        outputs = []
        for sample in samples:
            red = sample["image"][self.channel].float()
            if red.max() == 255:
                raise RuntimeError("a white pixel")
            centres = torch.arange(self.classes).reshape(-1, 1, 1) * 80.0 + 40
            outputs.append({"sem_seg": -((red - centres) ** 2) / 1000})
        return outputs


class Fixed(nn.Module):
    """The same output for every image."""

    def __init__(self, output) -> None:
        super().__init__()
        self.output = output

    def forward(self, samples):
        return [self.output for _ in samples]


def predictor(model, labels=SEMANTIC, image_format="BGR", **arguments) -> Predictor:
    cfg = get_cfg()
    cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TEST = image_format, 0
    arguments.setdefault("identity", "stub")
    return Predictor(model=model, preparation=Preparation(cfg), labels=labels, **arguments)


def stripes(height: int = 12, width: int = 20) -> np.ndarray:
    """An RGB image of sky above, grass below and a person in the middle, as RedChannel sees it."""
    image = np.full((height, width, 3), 40, np.uint8)
    image[height // 2 :, :, 0] = 120
    image[3:9, 8:12, 0] = 200
    image[..., 2] = 90  # blue is not red
    return image


def instances(height: int = 12, width: int = 20) -> Instances:
    """Two people and a dog, out of order, the dog below a score of 0.5."""
    masks = np.zeros((3, height, width), bool)
    masks[0, 2:6, 2:6] = masks[1, 4:10, 4:10] = masks[2, 0:3, 15:20] = True
    found = Instances((height, width))
    found.pred_boxes = Boxes(torch.tensor([[2.0, 2, 6, 6], [4, 4, 10, 10], [15, 0, 20, 3]]))
    found.scores = torch.tensor([0.6, 0.9, 0.3])
    found.pred_classes = torch.tensor([0, 0, 1])
    found.pred_masks = RunLengthMasks.from_bitmasks(masks)
    return found


def panoptic(height: int = 12, width: int = 20):
    """Sky, grass, two people; id 9 is listed nowhere."""
    ids = torch.zeros(height, width, dtype=torch.int32)
    ids[: height // 2], ids[height // 2 :] = 4, 3
    ids[2:8, 2:5], ids[2:8, 12:15], ids[0, 0] = 300, 70000, 9
    segments = [
        {"id": 300, "isthing": True, "category_id": 0, "score": 0.9},
        {"id": 70000, "isthing": True, "category_id": 0, "score": 0.8},
        {"id": 4, "isthing": False, "category_id": 2},
        {"id": 3, "isthing": False, "category_id": 3},
    ]
    return ids, segments
