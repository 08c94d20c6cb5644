"""Mask R-CNN over the views of an image: the rule of Detectron2's ``GeneralizedRCNNWithTTA``.

The boxes of all views, brought to the output, pass non-maximum suppression together. For each box
that stays, every view is asked for the mask in that box, and these are averaged (He et al. 2017,
appendix B). With views one by one the result is what Detectron2 gives with ``batch_size=1``. Where
it deviates, it is this way:

- Detectron2 pads views of different sizes to one batch, so that what it finds in one depends on
  the others; here no view sees another.
- Detectron2 leaves the mask head turned off after an error, and needs ``height`` and ``width``.
- Boxes without an area are left out, also of a system without masks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference_single_image
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from .views import View, Views

# What a system finds in a view: boxes, scores and classes, in the view's pixels.
Look = Callable[[View], Instances]

# As in Detectron2: all but what is certain to be nothing.
_LEAST_SCORE = 1e-8


def find_regions(model: Any, views: Views, look: Look) -> Instances:
    """The instances of an image, of the output's size, masks inside their boxes.

    Memory is that of one view and of two (N, M, M) stacks of masks.

    Args:
        model: of Detectron2's ``GeneralizedRCNN``.
        views: of the image.
        look: what the model finds in a view; its mask head is turned off meanwhile.
    """
    with _without_masks(model.roi_heads):
        instances = _boxes(model, views, look)
    if not getattr(model.roi_heads, "mask_on", False):
        return instances
    total: Tensor | None = None
    for view in views:
        inside = Instances(view.size)
        inside.pred_boxes = Boxes(view.boxes_from_output(instances.pred_boxes.tensor))
        inside.pred_classes, inside.scores = instances.pred_classes, instances.scores
        features = model.backbone(model.preprocess_image([view.sample]).tensor)
        masks = model.roi_heads.forward_with_given_boxes(features, [inside])[0].pred_masks
        masks = view.upright(masks)
        total = masks if total is None else total + masks
    assert total is not None  # there is at least one view
    instances.pred_masks = total / len(views)
    return instances


def predict_regions(model: Any, views: Views) -> dict[str, Any]:
    """``instances`` by the views of an image, of Detectron2's ``GeneralizedRCNN``."""

    def look(view: View) -> Instances:
        return model.inference([view.sample], do_postprocess=False)[0]

    instances = find_regions(model, views, look)
    return {"instances": detector_postprocess(instances, views.height, views.width)}


def _boxes(model: Any, views: Views, look: Look) -> Instances:
    parts = []
    for view in views:
        found = look(view)
        boxes = view.boxes_to_output(found.pred_boxes.tensor)
        parts.append((boxes, found.scores, found.pred_classes))
    boxes, scores, classes = (torch.cat(part) for part in zip(*parts, strict=True))
    # Suppression wants the scores of all classes, and of the background.
    by_class = scores.new_zeros(len(scores), model.roi_heads.num_classes + 1)
    by_class[torch.arange(len(scores), device=scores.device), classes] = scores
    return fast_rcnn_inference_single_image(
        boxes,
        by_class,
        (views.height, views.width),
        _LEAST_SCORE,
        views.overlap_threshold,
        views.detections,
    )[0]


@contextlib.contextmanager
def _without_masks(roi_heads: nn.Module) -> Iterator[None]:
    """The RoI heads find boxes alone."""
    masks = getattr(roi_heads, "mask_on", False)
    if not masks:
        yield
        return
    roi_heads.mask_on = False
    try:
        yield
    finally:
        roi_heads.mask_on = masks
