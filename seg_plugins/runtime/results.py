"""From what a file gives of an image to the system's own output."""

from __future__ import annotations

from typing import Any

from detectron2.modeling.postprocessing import detector_postprocess, sem_seg_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ..modeling.instance_representations.mask_forms import DenseMasks, OutlineMasks
from ..modeling.meta_arch.mask_rcnn import wanted_size
from ..modeling.meta_arch.one_stage import OneStageInstanceSegmentor
from ..modeling.meta_arch.panoptic_bottom_up import BottomUpPanopticSegmentor, resized_maps


def system_output(
    model: nn.Module | None, found: dict[str, Tensor], sample: dict[str, Any]
) -> dict[str, Any]:
    """Detectron2's output for one image at the wanted size.

    Args:
        model: the system of the file; its parameters are not used. Label maps need none.
        found: the file's outputs for the image, without a dimension for images: ``logits``, or
            ``scores`` and what belongs to them, or both; of a bottom-up system ``logits``,
            ``heatmaps`` and ``offsets``.
        sample: ``image`` (C, H, W); ``height`` and ``width`` of the output.
    """
    system: Any = model
    size = (sample["image"].shape[-2], sample["image"].shape[-1])
    height, width = wanted_size(sample, size)
    if isinstance(system, BottomUpPanopticSegmentor):
        maps = [found["logits"], found["heatmaps"], found["offsets"]]
        return system.merged(*resized_maps(maps, size, height, width))
    if "scores" not in found:
        return {"sem_seg": sem_seg_postprocess(found["logits"], size, height, width)}
    instances = Instances(size)
    instances.scores, instances.pred_classes = found["scores"], found["classes"]
    if isinstance(system, OneStageInstanceSegmentor):
        # Masks of the image's own pixels: a grid of stride 1.
        instances.pred_masks = (
            OutlineMasks(found["outlines"])
            if "outlines" in found
            else DenseMasks(found["masks"], 1, mask_threshold(system))
        )
    else:
        instances.pred_boxes = Boxes(found["boxes"])
        if "masks" in found:
            instances.pred_masks = found["masks"][:, None]
    finish = getattr(system, "finish", detector_postprocess)
    finished = finish(instances, height, width)
    if "logits" not in found:
        return {"instances": finished}
    return system.merged(sem_seg_postprocess(found["logits"], size, height, width), finished)


def mask_threshold(model: nn.Module) -> float:
    """From which probability a pixel belongs to a mask; 0 to 1."""
    return float(getattr(getattr(model, "representation", None), "mask_threshold", 0.5))
