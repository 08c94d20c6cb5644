"""One model, several threads: each call gives what it gives alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from seg_plugins import load_config

import pytest
import torch
from detectron2.modeling import build_model

THREADS = 4
TIMM_FPN = [
    *("MODEL.BACKBONE.NAME", "build_timm_fpn_backbone", "MODEL.TIMM.NAME", "resnet18"),
    *("MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4", "res5"]),
    *("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res2", "res5"]),
]
COMMON = ["MODEL.DEVICE", "cpu", "TEST.DETECTIONS_PER_IMAGE", 10]
UNET = ["MODEL.UNET.WIDTH", 8, "MODEL.UNET.DEPTH", 3]
SYSTEMS = {
    "semantic": ("quickstart/unet_shapes.yaml",
                 [*UNET, "MODEL.SEM_SEG_HEAD.IN_FEATURES", ["enc1", "enc2", "enc3"]]),
    "pooling indices": ("quickstart/segnet_vgg11_shapes.yaml", ["MODEL.VGG.WIDTH", 16]),
    "patch": ("quickstart/patch_classifier_shapes.yaml", ["MODEL.PATCH.CHANNELS", 8]),
    "instance": ("shapes/mask_rcnn_r18_fpn.yaml", []),
    "panoptic, timm pyramid": ("shapes/panoptic_deeplabv3plus.yaml", TIMM_FPN),
    "panoptic, VGG pyramid": ("shapes/panoptic_segnet.yaml", ["MODEL.VGG.WIDTH", 16]),
    "bottom-up": ("shapes/panoptic_bottom_up.yaml", []),
}  # fmt: skip


def flat(outputs) -> list[torch.Tensor]:
    """The tensors of a model's output for one image."""
    output, tensors = outputs[0], []
    if "sem_seg" in output:
        tensors.append(output["sem_seg"])
    if "panoptic_seg" in output:
        tensors.append(output["panoptic_seg"][0])
    if "instances" in output:
        found = output["instances"]
        masks = found.pred_masks
        masks = torch.from_numpy(masks.to_bitmasks()) if hasattr(masks, "to_bitmasks") else masks
        tensors += [found.pred_boxes.tensor, found.scores, found.pred_classes, masks]
    return tensors


@pytest.mark.parametrize("system", SYSTEMS)
def test_threads_get_what_one_thread_gets(system) -> None:
    config, opts = SYSTEMS[system]
    model = build_model(load_config(config, [*COMMON, *opts])).eval()
    images = [torch.randint(256, (3, 64, 96), dtype=torch.uint8) for _ in range(THREADS)]

    def predict(image: torch.Tensor) -> list[torch.Tensor]:
        torch.set_num_threads(1)  # of this thread: the order of sums is the same in all
        with torch.no_grad():
            return flat(model([{"image": image}]))

    threads_before = torch.get_num_threads()
    alone = [predict(image) for image in images]
    # All threads have left a part of the network before one goes on: what it has put aside
    # anywhere but on its own stack is another's by then.
    barrier = threading.Barrier(THREADS)
    backbone = model.backbone

    def wait(*_: object) -> None:
        barrier.wait(60)

    for part in (getattr(backbone, "bottom_up", backbone), backbone):
        part.register_forward_hook(wait)
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(predict, images))
    torch.set_num_threads(threads_before)
    for mine, expected in zip(found, alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, expected, strict=True))
    assert not torch.equal(alone[0][0], alone[1][0])
