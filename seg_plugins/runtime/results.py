"""From what a file gives of an image to the system's own output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ..modeling.instance_representations.mask_forms import DenseMasks, OutlineMasks
from ..modeling.meta_arch.mask_rcnn import wanted_size
from ..modeling.meta_arch.one_stage import OneStageInstanceSegmentor
from ..modeling.meta_arch.panoptic_bottom_up import BottomUpPanopticSegmentor, resized_maps
from ..modeling.postprocessing import sem_seg_postprocess
from ..modeling.test_time.probabilities import MeanProbability
from ..modeling.test_time.views import View, Views


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
    finish = getattr(system, "finish", detector_postprocess)
    finished = finish(instances_of(system, found, size), height, width)
    if "logits" not in found:
        return {"instances": finished}
    return system.merged(sem_seg_postprocess(found["logits"], size, height, width), finished)


def system_output_of_views(
    model: nn.Module | None,
    run: Callable[[dict[str, Any]], dict[str, Tensor]],
    views: Views,
) -> dict[str, Any]:
    """The system's output for an image by its views: the rules of its ``predict_views``.

    Args:
        model: as of :func:`system_output`; not of regions, which are asked for masks in the boxes
            of all views.
        run: what the file gives of a sample.
        views: of the image.
    """
    system: Any = model
    mean, kinds = MeanProbability(), set[str]()
    if system is None:
        for view in views:
            mean.add_view(run(view.sample)["logits"], view, views)
        return {"sem_seg": mean.logits()}
    if isinstance(system, BottomUpPanopticSegmentor):
        names = ("logits", "heatmaps", "offsets")

        def maps(view: View) -> list[Tensor]:
            found = run(view.sample)
            return [found[name] for name in names]

        return system.merged_views(views, maps)

    def look(view: View) -> Instances:
        found = run(view.sample)
        kinds.update(found)
        if "logits" in found:
            mean.add_view(found["logits"], view, views)
        return instances_of(system, found, view.size)

    instances = system.find_in_views(views, look)
    if "logits" not in kinds:
        return {"instances": instances}
    return system.merged(mean.logits(), instances)


def instances_of(system: Any, found: dict[str, Tensor], size: tuple[int, int]) -> Instances:
    """The instances of a file's outputs, as the system finds them in an image of a size."""
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
    return instances


def mask_threshold(model: nn.Module) -> float:
    """From which probability a pixel belongs to a mask; 0 to 1."""
    return float(getattr(getattr(model, "representation", None), "mask_threshold", 0.5))
